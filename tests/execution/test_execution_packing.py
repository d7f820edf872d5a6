"""Tensors packed together come out as they went in."""

from __future__ import annotations

import torch

from ssd_lab.execution.packing import carried, packed, unpacked


def test_numbers_of_any_kind_and_shape_travel_together() -> None:
    tensors = [
        torch.tensor([True, False, True]),
        torch.arange(6).view(2, 3),
        torch.tensor(2.5),
        torch.randn(4, 5).t(),
        torch.randn(2, 0, 3),
        torch.randn(3, dtype=torch.bfloat16),
        torch.arange(8, dtype=torch.int32)[1::3],
    ]
    for got in (unpacked(packed(tensors), tensors), carried(tensors, torch.device("cpu"))):
        assert all(one.dtype == two.dtype and torch.equal(one, two) for one, two in zip(got, tensors, strict=True))
    assert packed(tensors).numel() == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
