"""Tensors that travel come out as they went in: packed together, to another device, into another process."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.packing import carried, packed, unpacked
from ssd_lab.links.channel import dumped


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


def test_a_tensor_in_a_message_is_there_on_the_device_that_asks_for_it() -> None:
    sender = DeviceTensor.of(torch.arange(3))
    assert sender.here().tolist() == [0, 1, 2]
    assert sender.here(torch.device("meta")).device.type == "meta", "it came on the sender's"


def test_into_another_process_a_tensor_goes_once_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event, which only this process knows, does not go with it."""
    waited: list[Any] = []

    class Event:
        def wait(self, stream: Any) -> None:
            waited.append(stream)

        def __reduce__(self) -> Any:
            raise TypeError("cannot pickle an event")

    monkeypatch.setattr(torch.accelerator, "current_stream", lambda device: "the stream")
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    sender: Any = DeviceTensor(torch.arange(3), Event())  # type: ignore[arg-type]
    got = pickle.loads(dumped(sender))
    assert waited == ["the stream"]
    assert got.made is None and got.tensor.tolist() == [0, 1, 2]
