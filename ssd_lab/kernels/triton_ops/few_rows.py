"""A weight with the kernels that multiply rows by it."""

from __future__ import annotations

import torch
import triton

from ssd_lab.kernels.product import Partials, Product, whole
from ssd_lab.kernels.triton_ops.linear import run_product
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning, Tile
from ssd_lab.kernels.triton_ops.room import rows_with_room

SHARED_BYTES = 227 * 1024  # of a program, on compute capability 9.0; others have less
# Compute capability and Triton's version on which all tiles were compared in bfloat16, bit by bit, with each other and
# for many numbers of rows (`tests/kernels/on_device/test_triton_linear.py`). Elsewhere products are tried when a model
# is loaded, and weights are not fetched early.
COMPARED = frozenset({((9, 0), "3.6")})


class TritonFewRows:
    """A weight with its tuning: see `FewRowsProduct`. weight: bfloat16 or float16, contiguous.

    early: see `run_product`; None: where that was compared.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        tuning: LinearTuning,
        *,
        pdl: bool = False,
        early: bool | None = None,
    ) -> None:
        self.tuning = tuning
        self.compared = False
        self._weight, self._bias, self._pdl = weight, bias, pdl
        self._shared_bytes = SHARED_BYTES
        if weight.device.type == "cuda" or (weight.is_meta and torch.cuda.is_available()):  # or the current device
            properties = torch.cuda.get_device_properties(None if weight.is_meta else weight.device)
            self._shared_bytes = getattr(properties, "shared_memory_per_block_optin", SHARED_BYTES)
            version = ".".join(triton.__version__.split(".")[:2])
            known = torch.version.hip is None and ((properties.major, properties.minor), version) in COMPARED
            self.compared = known and weight.dtype == torch.bfloat16
        self._early = self.compared if early is None else early

    def __call__(self, rows: torch.Tensor) -> Product:
        """See `FewRowsProduct`."""
        tile = self._tile(rows)
        splits, count, out_features = self.tuning.split_k, rows.shape[0], self._weight.shape[0]
        if splits == 1 or tile.whole:
            return self._into(rows, rows.new_empty(count, out_features), tile)
        sums = torch.empty(splits, count, out_features, dtype=torch.float32, device=rows.device)
        return Partials(self._into(rows, sums, tile), self._weight.dtype)

    def gated(self, rows: torch.Tensor) -> torch.Tensor | None:
        """See `FewRowsProduct`."""
        if self.tuning.split_k > 1:
            return None
        out = rows_with_room((rows.shape[0], self._weight.shape[0] // 2), rows.dtype, rows.device)
        return self._into(rows, out, self._tile(rows, gated=True), gated=True)

    def wide(self, rows: torch.Tensor) -> torch.Tensor:
        """See `FewRowsProduct`."""
        tile = self._tile(rows)
        if self.tuning.split_k > 1 and not tile.whole:
            return whole(self(rows)).float()
        out = torch.empty(rows.shape[0], self._weight.shape[0], dtype=torch.float32, device=rows.device)
        return self._into(rows, out, tile)

    def _tile(self, rows: torch.Tensor, *, gated: bool = False) -> Tile:
        tile = self.tuning.tile(self._weight.shape[1], rows.shape[0], gated=gated)
        return tile.within(self._shared_bytes, 2 if gated else 1)

    def _into(self, rows: torch.Tensor, out: torch.Tensor, tile: Tile, *, gated: bool = False) -> torch.Tensor:
        run_product(
            rows.contiguous(), self._weight, self._bias, out, self.tuning, tile,
            gated=gated, pdl=self._pdl, early=self._early,
        )  # fmt: skip
        return out
