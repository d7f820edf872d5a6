"""Reading results from a device without making it wait: start the copy, go on, ask later."""

from __future__ import annotations

import numpy as np
import torch


class HostCopy:
    """Tensors on their way to the host; `arrays()` waits until they are there. CPU tensors are there at once."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._hosts = [tensor if tensor.device.type == "cpu" else self._start(tensor) for tensor in tensors]
        if any(tensor.device.type == "cuda" for tensor in tensors):
            self._event = torch.cuda.Event()
            self._event.record()

    def arrays(self) -> list[np.ndarray]:
        """The tensors' values."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
        return [host.numpy() for host in self._hosts]

    @staticmethod
    def _start(tensor: torch.Tensor) -> torch.Tensor:
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)
