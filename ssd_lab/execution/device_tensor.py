"""Tensors in messages between workers on streams of the same device."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor that the sender's stream makes, for a worker on another stream of the same device."""

    tensor: torch.Tensor
    made: torch.Event | None

    @classmethod
    def of(cls, tensor: torch.Tensor) -> DeviceTensor:
        """What the current stream has been told to make."""
        if tensor.device.type != "cuda":
            return cls(tensor, None)
        made = torch.Event("cuda")
        made.record()
        return cls(tensor, made)

    def here(self) -> torch.Tensor:
        """The tensor, for work of the current stream."""
        if self.made is not None:
            stream = torch.accelerator.current_stream(self.tensor.device)
            self.made.wait(stream)
            self.tensor.record_stream(stream)
        return self.tensor
