"""Is a row's product the same bit for bit whatever the number of rows? If not, how many rows make it so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F

from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.row_padding import LARGEST, MANY, RowPadding

ROW_COUNTS = (32, 16, 8, 1, 2, 3, 4, 5, 7, 21, 64, 112, LARGEST)  # those first in which libraries most often differ
FEW = 64  # rows compared where groups are small, to keep the probe short
RESULTS, MOST_BLOCKS = 1 << 20, 16  # results that many rows are to have, from as many blocks of `LARGEST` rows at most

_found: dict[tuple[object, ...], RowPadding] = {}  # by what decides how the library computes a product

# minimum and multiple; the last two for libraries that compute few rows in another way than many: let all be many
CANDIDATES = ((1, 1), (2, 1), (4, 4), (8, 8), (24, 1), (32, 1))
PIECES = (96, 64, 48, 32, 16, 8)


@torch.inference_mode()
def make_row_invariant(linears: Iterable[Linear]) -> RowPadding:
    """Give every product the least padding, and the largest pieces, that make a row's bits independent of its company.

    Some libraries change the order of a sum with the number of rows (oneDNN does for a single row of more than 1,024
    inputs, cuBLAS for large row counts); greedy text then depends on batch and strategy where two tokens are nearly
    tied. In bfloat16 such a change shows in one result of thousands, so the probe compares many rows of every shape.
    Returns the padding that all shapes share; `largest` is that of the shape that needs the smallest pieces, and holds
    for all. If some shape has none, nothing is padded and the result is not invariant. A library is believed up to as
    many rows as were probed, a kernel of ours, in which a row's sums do not depend on the others, up to any number.
    """
    linears = list(linears)
    by_shape = {(linear.out_features, linear.in_features): linear for linear in linears}
    probed, largest = {}, None
    for shape, linear in by_shape.items():
        padding = probed[shape] = _once_probed(linear, largest)
        if not padding.invariant:
            return RowPadding()
        largest = padding.largest
    for linear in linears:  # where a library changes its ways for one shape, another may have passed by luck
        linear.padding = replace(probed[linear.out_features, linear.in_features], largest=largest)
    return RowPadding(
        minimum=max(padding.minimum for padding in probed.values()),
        multiple=max(padding.multiple for padding in probed.values()),
        largest=largest,
        invariant=True,
        together=MANY if all(linear.has_kernel for linear in linears) and largest is None else LARGEST,
    )


def _once_probed(linear: Linear, most: int | None) -> RowPadding:
    """Once in a process for all products that the library computes alike; on a GPU it may go by more than is known. A
    kernel that was compared on such a device is not tried: it would be compiled for rows that no run may have.
    """
    if linear.is_compared:
        return RowPadding(largest=most, invariant=True)
    if linear.device.type != "cpu":
        return probe_row_padding(linear, most)
    by = (linear.layout, most, torch.get_num_threads())
    if by not in _found:
        _found[by] = probe_row_padding(linear, most)
    return _found[by]


@torch.inference_mode()
def probe_row_padding(linear: Linear, most: int | None = None) -> RowPadding:
    """The least padding and the largest pieces, of `most` rows if that is given, for one product; not invariant if none
    of those tried works.
    """
    generator = torch.Generator().manual_seed(0)
    total = LARGEST * min(MOST_BLOCKS, -(-RESULTS // (LARGEST * linear.out_features)))
    inputs = torch.randn(total, linear.in_features, generator=generator).to(linear.device, linear.dtype)
    for largest in (None, *PIECES) if most is None else (piece for piece in PIECES if piece <= most):
        count = largest or LARGEST
        expected = torch.cat([linear.product(inputs[start : start + count]) for start in range(0, total, count)])
        for minimum, multiple in CANDIDATES:
            candidate = RowPadding(minimum, multiple, largest, invariant=True)
            tried = [rows for rows in ROW_COUNTS if candidate.padded(rows) <= count]
            if tried and all(_agrees(linear, inputs, expected, rows, candidate) for rows in tried):
                return candidate
    return RowPadding()


def _agrees(linear: Linear, inputs: torch.Tensor, expected: torch.Tensor, rows: int, padding: RowPadding) -> bool:
    """Is the product the expected one when computed `rows` at a time with padding?"""
    blocks = len(inputs) // LARGEST if rows >= 8 else 1  # else there would be too many groups
    compared = blocks * (LARGEST if rows > FEW else FEW if rows == 1 else FEW // 2)
    for start in range(0, compared, rows):
        group = inputs[start : start + rows]
        missing = padding.padded(len(group)) - len(group)
        product = linear.product(F.pad(group, (0, 0, 0, missing)))
        if not torch.equal(product[: len(group)], expected[start : start + rows]):
            return False
    return True
