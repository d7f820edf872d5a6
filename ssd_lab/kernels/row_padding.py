"""Is a row's product the same bit for bit whatever the number of rows? If not, how many rows make it so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ssd_lab.kernels.linear import Linear

LARGEST = 128  # rows up to which equality is probed; longer prompts are computed in pieces of this size
ROW_COUNTS = (1, 2, 3, 4, 5, 7, 8, 16, 21, 24, 32, 64, 112, LARGEST)


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


def probe_row_padding(linears: Iterable[Linear]) -> RowPadding:
    """The least padding under which every distinct shape gives a row the same bits among ROW_COUNTS rows, at any place.

    Some libraries change the order of a sum with the number of rows; greedy text then depends on batch and strategy
    where two tokens are nearly tied. Without such a padding the result is RowPadding() with `invariant=False`.
    """
    shapes = {(linear.out_features, linear.in_features): linear for linear in linears}
    generator = torch.Generator().manual_seed(0)
    candidates = list(CANDIDATES)
    for linear in shapes.values():
        row = torch.randn(linear.in_features, generator=generator).to(linear.device, linear.dtype)
        results: dict[int, torch.Tensor] = {}

        def product(
            rows: int, row: torch.Tensor = row, linear: Linear = linear, results: dict = results
        ) -> torch.Tensor:
            """The row's product among `rows` others, or NaN if it depends on where the row stands."""
            if rows not in results:
                others = torch.randn(rows, linear.in_features, generator=generator).to(linear.device, linear.dtype)
                at_places = []
                for place in sorted({0, rows // 2, rows - 1}):
                    inputs = others.clone()
                    inputs[place] = row
                    at_places.append(linear(inputs)[place])
                same = all(torch.equal(at_places[0], other) for other in at_places)
                results[rows] = at_places[0] if same else torch.full_like(at_places[0], float("nan"))
            return results[rows]

        candidates = [
            padding
            for padding in candidates
            if len({product(padding.padded(rows)).float().numpy(force=True).tobytes() for rows in ROW_COUNTS}) == 1
            and not bool(product(padding.padded(1)).isnan().any())
        ]
        if not candidates:
            return RowPadding()
    return candidates[0]
