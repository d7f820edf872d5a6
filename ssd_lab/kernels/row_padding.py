"""How many rows of a product are computed together, so that a row has the same bits whatever their number."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

LARGEST = 128  # rows up to which equality is probed
MANY = 4096  # rows of one forward where kernels give a row the same bits by the way they are made, whatever the number


@dataclass(frozen=True)
class RowPadding:
    """How many rows are computed together: padded to at least `minimum` and to a multiple of `multiple`, and more than
    `largest` in pieces.

    invariant: with this the probe found equal bits for all row counts it tried. together: rows of all texts that one
    forward may compute, so that each has the bits that it would have alone.
    """

    minimum: int = 1
    multiple: int = 1
    largest: int | None = None
    invariant: bool = field(default=False, kw_only=True)
    together: int = field(default=LARGEST, kw_only=True)

    @cached_property
    def is_none(self) -> bool:
        """Are any number of rows computed as they are?"""
        return self.minimum == self.multiple == 1 and self.largest is None

    def padded(self, rows: int) -> int:
        """How many rows to compute when `rows` are wanted."""
        return max(self.minimum, -(-rows // self.multiple) * self.multiple)


ANY_ROWS = RowPadding(together=MANY)  # where bits may depend on the number of rows
