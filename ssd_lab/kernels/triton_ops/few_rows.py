"""A weight with the kernel that multiplies rows by it; more rows than a few may be the library's."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ssd_lab.kernels.product import Partials, Product
from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.kernels.triton_ops.linear import run_product
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning


class TritonFewRows:
    """A weight with its tuning: see `FewRowsProduct`. weight: bfloat16 or float16, contiguous."""

    library_rows: int

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, tuning: LinearTuning, *, pdl: bool = False
    ) -> None:
        self.tuning = tuning
        self.library_rows = tuning.library_rows
        self._weight, self._bias, self._pdl = weight, bias, pdl

    def __call__(self, rows: torch.Tensor) -> Product:
        """See `FewRowsProduct`."""
        if self._is_for_library(rows):
            return self._by_library(rows)
        splits = self.tuning.split_k
        if splits == 1:
            return self._into(rows, rows.new_empty(rows.shape[0], self._weight.shape[0]))
        sums = torch.empty(splits, rows.shape[0], self._weight.shape[0], dtype=torch.float32, device=rows.device)
        return Partials(self._into(rows, sums), self._weight.dtype)

    def gated(self, rows: torch.Tensor) -> torch.Tensor | None:
        """See `FewRowsProduct`."""
        if self.tuning.split_k > 1 or self._is_for_library(rows):
            return None
        return self._into(rows, rows.new_empty(rows.shape[0], self._weight.shape[0] // 2), gated=True)

    def wide(self, rows: torch.Tensor) -> torch.Tensor:
        """See `FewRowsProduct`."""
        if self.tuning.split_k > 1 or self._is_for_library(rows):
            product = self(rows)
            return (product.total() if isinstance(product, Partials) else product).float()
        out = torch.empty(rows.shape[0], self._weight.shape[0], dtype=torch.float32, device=rows.device)
        return self._into(rows, out)

    def _is_for_library(self, rows: torch.Tensor) -> bool:
        return self.library_rows > 0 and rows.shape[0] > LARGEST

    def _by_library(self, rows: torch.Tensor) -> torch.Tensor:
        """Always of the same number of rows, so that the library never has a reason to go another way."""
        count = rows.shape[0]
        padded = F.pad(rows, (0, 0, 0, -count % self.library_rows))
        pieces = [F.linear(piece, self._weight, self._bias) for piece in padded.split(self.library_rows)]
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces))[:count]

    def _into(self, rows: torch.Tensor, out: torch.Tensor, *, gated: bool = False) -> torch.Tensor:
        run_product(rows.contiguous(), self._weight, self._bias, out, self.tuning, gated=gated, pdl=self._pdl)
        return out
