"""What a product with weights leaves for the kernel that reads it: the result, or pieces of its sums."""

from __future__ import annotations

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


Product = torch.Tensor | Partials


def whole(product: Product) -> torch.Tensor:
    """The product itself `[n, out]`."""
    return product.total() if isinstance(product, Partials) else product
