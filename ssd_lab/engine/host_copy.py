"""Between host and device without waiting: start the copy, go on, ask later."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


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

    The values are those of now, whatever becomes of the tensors. CPU tensors are there at once.
    """

    def __init__(self, *tensors: torch.Tensor) -> None:
        self._event: torch.Event | None = None
        self._hosts = [tensor.clone() if tensor.device.type == "cpu" else self._start(tensor) for tensor in tensors]
        if any(tensor.device.type == "cuda" for tensor in tensors):
            self._event = torch.Event("cuda")  # torch.cuda.Event asks Python for the stream: ten times the host's time
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
