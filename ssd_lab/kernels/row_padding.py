"""Is a row's product the same bit for bit whatever the number of rows? If not, how many rows make it so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ssd_lab.kernels.linear import Linear

LARGEST = 128  # rows up to which equality is probed; longer prompts are computed in pieces of this size
ROW_COUNTS = (1, 2, 3, 4, 5, 7, 8, 16, 21, 32, 64, 112, LARGEST)
FEW = 64  # rows compared where groups are small, to keep the probe short


@dataclass(frozen=True)
class RowPadding:
    """Rows are padded to at least `minimum` and to a multiple of `multiple`.

    invariant: with this padding the probe found equal bits for all row counts it tried.
    """

    minimum: int = 1
    multiple: int = 1
    invariant: bool = False

    def padded(self, rows: int) -> int:
        """How many rows to compute when `rows` are wanted."""
        return max(self.minimum, -(-rows // self.multiple) * self.multiple)


CANDIDATES = (RowPadding(1, 1, True), RowPadding(2, 1, True), RowPadding(4, 4, True), RowPadding(8, 8, True))


@torch.inference_mode()
def probe_row_padding(linears: Iterable[Linear]) -> RowPadding:
    """The least padding under which every distinct shape gives a row the same bits in groups of ROW_COUNTS rows.

    Some libraries change the order of a sum with the number of rows (oneDNN does for a single row of more than 1,024
    inputs); greedy text then depends on batch and strategy where two tokens are nearly tied. In bfloat16 such a change
    shows in one result of thousands, so the probe compares many rows of every shape. Without a padding that works the
    result is RowPadding(), which is not invariant.
    """
    shapes = {(linear.out_features, linear.in_features): linear for linear in linears}
    generator = torch.Generator().manual_seed(0)
    candidates = list(CANDIDATES)
    for linear in shapes.values():
        inputs = torch.randn(LARGEST, linear.in_features, generator=generator).to(linear.device, linear.dtype)
        expected = linear(inputs)
        while candidates and not all(_agrees(linear, inputs, expected, rows, candidates[0]) for rows in ROW_COUNTS):
            candidates.pop(0)
        if not candidates:
            return RowPadding()
    return candidates[0]


def _agrees(linear: Linear, inputs: torch.Tensor, expected: torch.Tensor, rows: int, padding: RowPadding) -> bool:
    """Is the product the expected one when computed `rows` at a time with padding?"""
    compared = LARGEST if rows > FEW else FEW if rows == 1 else FEW // 2
    for start in range(0, compared, rows):
        group = inputs[start : start + rows]
        missing = padding.padded(len(group)) - len(group)
        if not torch.equal(linear(F.pad(group, (0, 0, 0, missing)))[: len(group)], expected[start : start + rows]):
            return False
    return True
