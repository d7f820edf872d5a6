"""How a kernel reads a product that may come in pieces: see `kernels.product`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.product import Partials, Product, whole


@triton.jit
def load_product(pointers, inside, stride, SPLITS: tl.constexpr, DTYPE: tl.constexpr):
    """Elements of a product as float32, rounded to DTYPE; pointers into its first piece, `stride` from one to the next.

    SPLITS 1: the product itself, in whatever dtype.
    """
    total = tl.load(pointers, mask=inside, other=0.0).to(tl.float32)
    if SPLITS > 1:
        for split in tl.static_range(1, SPLITS):
            total += tl.load(pointers + split * stride, mask=inside, other=0.0)
        total = total.to(DTYPE).to(tl.float32)
    return total


def pieces_of(product: Product) -> tuple[torch.Tensor, int, torch.dtype]:
    """What `load_product` reads, contiguous: the tensor, its number of pieces, and the product's dtype."""
    if isinstance(product, Partials):
        return product.sums.contiguous(), product.sums.shape[0], product.dtype
    made = whole(product)
    return made.contiguous(), 1, made.dtype
