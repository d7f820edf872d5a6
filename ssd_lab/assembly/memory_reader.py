"""What a device says about its memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any, Protocol

import torch


class MemoryReader(Protocol):
    """Reads one device."""

    def free_bytes(self) -> int | None:
        """What could be allocated now; None if the platform does not tell."""
        ...

    def peak_of(self, function: Callable[[], Any]) -> int:
        """Run the function; the most it held at once, beyond what was held before."""
        ...


class CudaMemoryReader:
    """A CUDA device, by its driver and torch's allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free_bytes(self) -> int:
        """The driver's figure, after what is kept for nobody went back: an engine that was closed, cached blocks."""
        gc.collect()
        with torch.cuda.device(self._device):
            torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self._device)[0]

    def peak_of(self, function: Callable[[], Any]) -> int:
        """By the allocator's count of tensors."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        function()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before


class HostMemoryReader:
    """The memory of the machine, for what runs on its CPU."""

    def free_bytes(self) -> int | None:
        """Pages that nobody uses; None where the system does not say."""
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            return None

    def peak_of(self, function: Callable[[], Any]) -> int:
        """Not told by the host's allocator: 0."""
        function()
        return 0


def reader_of(device: torch.device) -> MemoryReader:
    """What reads the memory of this device."""
    return CudaMemoryReader(device) if device.type == "cuda" else HostMemoryReader()
