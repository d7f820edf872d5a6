"""Ranks that compute one model together: each has a part of its weights, and what they made is put together here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from ssd_lab.kernels.product import Product, whole


class Group(ABC):
    """One rank's place among `size`. All of them call the same methods in the same order, with equal shapes.

    Sums are made in the order of the ranks, in float32, on every rank alike: a row's bits depend on that row alone.
    A transport says how tensors are gathered; one with a kernel of its own may make a total at once.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._is_alone = False

    @abstractmethod
    def _gathered(self, own: torch.Tensor) -> Iterator[torch.Tensor]:
        """What every rank has of a flat tensor `[n]`, in pieces `[size, m]`, each of which is read before the next."""

    def close(self) -> None:  # noqa: B027 - a transport that holds nothing has nothing to free
        """Free what the transport holds; calling it twice is fine."""

    def confirm(self) -> None:  # noqa: B027 - most transports raise where they compute
        """Raise RankError if what was computed is nonsense, because a rank did not do its part; asked once results are
        on the host.
        """

    def unmade(self, product: Product) -> Product:
        """The same as `total`, where that is quicker made by whoever reads it, which all ranks do, once."""
        return self.total(product)

    def total(self, product: Product) -> torch.Tensor:
        """The sum of every rank's `[n, size]`, rounded once."""
        own = whole(product)
        pieces = [_sum(piece) for piece in self._pieces(own)]
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).view(own.shape)

    def joined(self, columns: torch.Tensor) -> torch.Tensor:
        """Every rank's columns `[n, m]` side by side, `[n, size * m]`."""
        parts = torch.cat([piece.clone() for piece in self._pieces(columns)], 1)
        return parts.view(self.size, *columns.shape).transpose(0, 1).reshape(len(columns), -1)

    def agreed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The first rank's tensor, on every rank."""
        return torch.cat([piece[0].clone() for piece in self._pieces(tensor)]).view(tensor.shape)

    def rows_of(self, table: torch.Tensor) -> torch.Tensor:
        """This rank's rows of a table `[vocab, size]` by token id: as many on each rank, the last ones zeros if there
        are too few.
        """
        count = rows_each(table.shape[0], self.size)
        part = table[self.rank * count : (self.rank + 1) * count]
        return part if len(part) == count else F.pad(part, (0, 0, 0, count - len(part)))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within this, take one's own part for everybody's: to see what a step holds, not what it computes."""
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False

    def _pieces(self, own: torch.Tensor) -> Iterator[torch.Tensor]:
        flat = own.reshape(-1)
        return iter([flat.expand(self.size, -1)]) if self._is_alone else self._gathered(flat)


def rows_each(count: int, size: int) -> int:
    """Rows of a table by token id that each of `size` ranks holds."""
    return -(-count // size)


def _sum(parts: torch.Tensor) -> torch.Tensor:
    """Of `[size, n]`, one after the other."""
    total = parts[0].float()
    for part in parts[1:]:
        total = total + part.float()
    return total.to(parts.dtype)
