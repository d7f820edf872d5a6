"""Tensors of a device in messages: to a worker on another stream, on another device or in another process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.execution.host_copy import sent


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor that the sender's stream makes, for a worker on another stream. Into another process goes a copy of it
    on the host, once it is made.
    """

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

    def here(self, device: torch.device | None = None) -> torch.Tensor:
        """The tensor, for work of the current stream; a copy where it lies on another device than the one asked for."""
        if self.made is not None:
            stream = torch.accelerator.current_stream(self.tensor.device)
            self.made.wait(stream)
            self.tensor.record_stream(stream)
        return self.tensor if device is None else sent(self.tensor, device)

    def __reduce__(self) -> tuple[type[DeviceTensor], tuple[torch.Tensor, None]]:
        """Events cannot travel: the host waits for the tensor."""
        return DeviceTensor, (self.here().cpu(), None)
