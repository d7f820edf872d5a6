"""Between host and device without waiting: start the copy, go on, ask later."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssd_lab.engine.device_wait import wait_for


def sent(values: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Numbers in lists or in a tensor, as a tensor on the device, behind what its current stream does. A plain copy
    would make the host wait until all of that is done.
    """
    host = values if isinstance(values, torch.Tensor) else torch.tensor(values, dtype=dtype)
    if host.device.type != "cpu" or torch.device(device).type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


class HostCopy:
    """Tensors on their way to the host; `arrays()` waits until they are there.

    The values are those of now, whatever becomes of the tensors. CPU tensors are there at once. The copy goes through
    pinned memory, which is given back as soon as `arrays()` has copied it out: torch's allocator hands the same few
    blocks out again, so that there are as many as there are copies under way, however many arrays are kept.
    """

    def __init__(self, *tensors: torch.Tensor) -> None:
        self._arrays: list[np.ndarray] | None = None
        self._hosts = [tensor.clone() if tensor.device.type == "cpu" else self._start(tensor) for tensor in tensors]
        if any(tensor.device.type == "cuda" for tensor in tensors):
            self._event = torch.Event("cuda")  # torch.cuda.Event asks Python for the stream: ten times the host's time
            self._event.record()
        else:
            self._arrays, self._hosts = [host.numpy() for host in self._hosts], []

    def arrays(self) -> list[np.ndarray]:
        """The tensors' values, in memory of their own."""
        if self._arrays is None:
            wait_for(self._event, "a step and the copy of its results")
            self._arrays = [host.numpy().copy() for host in self._hosts]
            self._hosts = []
        return self._arrays

    @staticmethod
    def _start(tensor: torch.Tensor) -> torch.Tensor:
        host = pinned(tensor.shape, tensor.dtype)
        return host.copy_(tensor, non_blocking=True)


def pinned(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Host memory that a device can write while the host goes on."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)
