"""Matrix products with weights: the library's GEMM, packed once for the CPU, or a kernel made for few rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

import torch
import torch.nn.functional as F

from ssd_lab.kernels.product import Product, whole
from ssd_lab.kernels.row_padding import RowPadding


class FewRowsProduct(Protocol):
    """A kernel for products with one weight, of any number of rows; a row's bits depend on it alone."""

    @property
    def compared(self) -> bool:
        """Was that shown on such a device? Then it needs no trying."""

    def __call__(self, rows: torch.Tensor) -> Product:
        """Rows `[n, in]` -> `[n, out]` (+ bias); its sums may be left in pieces."""

    def gated(self, rows: torch.Tensor) -> torch.Tensor | None:
        """silu(gate) * up `[n, out / 2]` of the product, with the bits of `Kernels.gated_silu`; None if it does not."""

    def wide(self, rows: torch.Tensor) -> torch.Tensor:
        """The product, rounded to its dtype, as float32."""


class Linear:
    """x -> x W^T (+ bias), rows `[n, in]` -> `[n, out]`.

    On the CPU the weight is packed for oneDNN when it is loaded (measured on 17 M parameters in bf16, 2 cores: 1 row
    1.95 ms against 2.9 unpacked, 8 rows 2.15 against 4.65), and a row's result has the same bits whatever the number of
    rows (one row alone may differ in fp32: `row_padding.py`). The packed weight replaces the plain one.
    In float32 the packed product rounds a little more than the plain one (`pack=False`).

    few_rows: computes every product instead of the library: were some left to it, K/V of a prompt would have other bits
    than those of the same tokens decoded.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        pack: bool = True,
        few_rows: FewRowsProduct | None = None,
    ) -> None:
        self.out_features, self.in_features = weight.shape
        self.dtype, self.device = weight.dtype, weight.device
        self.padding = RowPadding()
        self._bias = bias
        self._few_rows = few_rows
        packed = _pack(weight) if pack and few_rows is None else None
        self._is_packed = packed is not None
        self._weight = weight if packed is None else packed

    @property
    def bytes(self) -> int:
        """Memory of the weight."""
        return self.out_features * self.in_features * self.dtype.itemsize

    @property
    def layout(self) -> tuple[Hashable, ...]:
        """What decides how the library computes a product on a CPU: packed, the layout is its own."""
        shape = (type(self), self.out_features, self.in_features, self.dtype, self._bias is not None)
        plain = () if self._is_packed else (self._weight.stride(), self._weight.data_ptr() % 64)
        return (*shape, *plain)

    @property
    def has_kernel(self) -> bool:
        """Does a kernel for few rows, which takes any number, compute every product?"""
        return self._few_rows is not None

    @property
    def is_compared(self) -> bool:
        """Is it known of the kernel on this device that a row's bits do not depend on the others?"""
        return self._few_rows is not None and self._few_rows.compared

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows `[n, in]` -> `[n, out]`, padded and cut as `padding` says."""
        if self.padding.is_none:
            return self.product(rows)
        count, largest = rows.shape[0], self.padding.largest
        if largest is not None and count > largest:
            return torch.cat([self(rows[start : start + largest]) for start in range(0, count, largest)])
        missing = self.padding.padded(count) - count
        return self.product(rows) if missing == 0 else self.product(F.pad(rows, (0, 0, 0, missing)))[:count]

    def unsummed(self, rows: torch.Tensor) -> Product:
        """The same product, for an operation of `Kernels` that can add its pieces."""
        if self._few_rows is None:  # said first and plainly: on a CPU a product of few rows takes microseconds
            return self(rows)
        return self(rows) if (few_rows := self._kernel_for(rows)) is None else few_rows(rows)

    def gated(self, rows: torch.Tensor, gated_silu: Callable[[Product], torch.Tensor]) -> torch.Tensor:
        """silu(gate) * up `[n, out / 2]` of the product; gated_silu makes it where the product's kernel does not."""
        if self._few_rows is None:
            return gated_silu(self(rows))
        few_rows = self._kernel_for(rows)
        gated = None if few_rows is None else few_rows.gated(rows)
        return gated_silu(self.unsummed(rows)) if gated is None else gated

    def wide(self, rows: torch.Tensor) -> torch.Tensor:
        """The same product as float32."""
        if self._few_rows is None:
            return self(rows).float()
        return self(rows).float() if (few_rows := self._kernel_for(rows)) is None else few_rows.wide(rows)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows `[n, in]` -> `[n, out]` as the library or the kernel for few rows does it."""
        if self._few_rows is not None:
            return whole(self._few_rows(rows))
        if self._is_packed:
            return torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return F.linear(rows, self._weight, self._bias)

    def _kernel_for(self, rows: torch.Tensor) -> FewRowsProduct | None:
        """The kernel, if it takes these rows at once and as they are."""
        count = rows.shape[0]
        fits = 0 < count <= (self.padding.largest or count)
        return self._few_rows if fits and self.padding.padded(count) == count else None


def _pack(weight: torch.Tensor) -> torch.Tensor | None:
    """The weight in oneDNN's own layout, or None where that is not to be had."""
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight)
    except RuntimeError:  # a build or a processor without this dtype: the plain product still works
        return None
