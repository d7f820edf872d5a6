"""What a product with weights leaves for the kernel that reads it: the result, or pieces of its sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Partials:
    """A product whose sums over the inputs were cut in pieces that nobody has added yet.

    sums: `[splits, n, out]`, float32. The product is their sum from the first to the last, rounded to `dtype`; whoever
    reads it adds them in that order, so that its bits do not depend on who does.
    """

    sums: torch.Tensor
    dtype: torch.dtype

    def total(self) -> torch.Tensor:
        """The product `[n, out]`."""
        total = self.sums[0]
        for part in self.sums[1:]:
            total = total + part
        return total.to(self.dtype)


class Unmade(ABC):
    """A product that whoever reads it makes, once, perhaps in one kernel with what it is read for."""

    @abstractmethod
    def total(self) -> torch.Tensor:
        """The product `[n, out]`."""

    @abstractmethod
    def add_rms_norm(self, hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Kernels.add_rms_norm` with it."""


Product = torch.Tensor | Partials | Unmade


def whole(product: Product) -> torch.Tensor:
    """The product itself `[n, out]`."""
    return product if isinstance(product, torch.Tensor) else product.total()
