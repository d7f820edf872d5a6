"""Matrix products with weights: the library's GEMM, with weights packed once for the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ssd_lab.kernels.row_padding import RowPadding


class Linear:
    """x -> x W^T (+ bias), rows `[n, in]` -> `[n, out]`.

    On the CPU the weight is packed for oneDNN when it is loaded (measured on 17 M parameters in bf16, 2 cores: 1 row
    1.95 ms against 2.9 unpacked, 8 rows 2.15 against 4.65), and a row's result has the same bits whatever the number of
    rows (one row alone may differ in fp32: `row_padding.py`). The packed weight replaces the plain one.
    In float32 the packed product rounds a little more than the plain one (`pack=False`).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, pack: bool = True) -> None:
        self.out_features, self.in_features = weight.shape
        self.dtype, self.device = weight.dtype, weight.device
        self.padding = RowPadding()
        self._bias = bias
        packed = _pack(weight) if pack else None
        self._is_packed = packed is not None
        self._weight = weight if packed is None else packed

    @property
    def bytes(self) -> int:
        """Memory of the weight."""
        return self.out_features * self.in_features * self.dtype.itemsize

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows `[n, in]` -> `[n, out]`, padded and cut as `padding` says."""
        count, largest = rows.shape[0], self.padding.largest
        if largest is not None and count > largest:
            return torch.cat([self(rows[start : start + largest]) for start in range(0, count, largest)])
        missing = self.padding.padded(count) - count
        return self.product(rows) if missing == 0 else self.product(F.pad(rows, (0, 0, 0, missing)))[:count]

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows `[n, in]` -> `[n, out]` as the library does it."""
        if self._is_packed:
            return torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return F.linear(rows, self._weight, self._bias)


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
