"""A rank without the others: to see what its part of a model costs, where there is one device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ssd_lab.kernels.product import Product, whole
from ssd_lab.models.group import Group


class LoneRank(Group):
    """The first of `size` ranks, the only one that is there. It takes its own part for everybody's, so that what it
    computes is nonsense; a sum is left out, and takes no time.
    """

    def __init__(self, size: int) -> None:
        super().__init__(0, size)

    def unmade(self, product: Product) -> Product:
        """Its own part, for the kernel that reads it."""
        return product

    def total(self, product: Product) -> torch.Tensor:
        """Its own part."""
        return whole(product)

    def joined(self, columns: torch.Tensor) -> torch.Tensor:
        """As many columns as all ranks have: whoever reads them has as much to read."""
        return columns.repeat(1, self.size)

    def agreed(self, tensor: torch.Tensor) -> torch.Tensor:
        """It decides."""
        return tensor

    def _gathered(self, own: torch.Tensor) -> Iterator[torch.Tensor]:
        return iter([own.expand(self.size, -1)])
