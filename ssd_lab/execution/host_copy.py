"""Between host and device without waiting: start the copy, go on, ask later."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssd_lab.execution.device_wait import wait_for
from ssd_lab.execution.packing import packed, unpacked


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

    The values are those of now, whatever becomes of the tensors. CPU tensors are there at once. Others go together,
    through pinned memory, which is given back as soon as `arrays()` has copied it out: torch's allocator hands the same
    few blocks out again, so that there are as many as there are copies under way, however many arrays are kept.
    """

    def __init__(self, *tensors: torch.Tensor) -> None:
        self._arrays: list[np.ndarray] | None = None
        self._pinned, coming = _started([tensor for tensor in tensors if not is_on_host(tensor)])
        arriving = iter(coming)
        self._hosts = [tensor.clone() if is_on_host(tensor) else next(arriving) for tensor in tensors]
        self._event = _event_behind(tensors)

    def arrays(self) -> list[np.ndarray]:
        """The tensors' values, in memory of their own."""
        if self._arrays is None:
            if self._event is not None:
                wait_for(self._event, "a step and the copy of its results")
                self._event = None
            is_lent = self._pinned is not None
            self._arrays = [host.numpy().copy() if is_lent else host.numpy() for host in self._hosts]
            self._hosts, self._pinned = [], None
        return self._arrays


def pinned(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Host memory that a device can write while the host goes on."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def is_on_host(tensor: torch.Tensor) -> bool:
    """Is it where the host can read it?"""
    return tensor.device.type == "cpu"


def _started(tensors: list[torch.Tensor]) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """Pinned memory, and its parts that become copies of these."""
    if not tensors:
        return None, []
    data = packed(tensors)
    host = pinned(data.shape, data.dtype).copy_(data, non_blocking=True)
    return host, unpacked(host, tensors)


def _event_behind(tensors: tuple[torch.Tensor, ...]) -> torch.Event | None:
    """What to wait for before copies of these are there."""
    if not any(tensor.device.type == "cuda" for tensor in tensors):
        return None
    event = torch.Event("cuda")  # torch.cuda.Event asks Python for the stream: ten times the host's time
    event.record()
    return event
