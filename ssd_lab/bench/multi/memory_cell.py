"""What a device reads in a second, how fast it copies to another, and when its host sees what it has done."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.common.device_guard import current
from ssd_lab.profile.timing import read_bandwidth, seconds_per_call

COPIED_BYTES = (1 << 12, 1 << 16, 1 << 20, 1 << 26)


@dataclass(frozen=True)
class MemoryCell(Cell):
    """One device; beside: copies go there (None: it is the only kind)."""

    piece: ClassVar[str] = "links"

    device: str
    number: int
    beside: str | None
    repeats: int

    @property
    def key(self) -> str:
        """See `Cell`."""
        return f"{self.piece}/memory/{self.device}" + (f" {self.number}" if self.device == "cpu" else "")

    @property
    def group(self) -> str:
        """See `Cell`."""
        return self.piece

    @property
    def estimate_s(self) -> float:
        """Mostly the process's start."""
        return 8.0

    @torch.inference_mode()
    def run(self, kept: Kept) -> dict[str, Any]:
        """Bytes per second; on a GPU also copies to the next one and a graph's way to the host."""
        device = torch.device(self.device)
        with current(device):
            found: dict[str, Any] = {"bytes_per_second": read_bandwidth(device)}
            if device.type == "cuda":
                found |= {"host_sees_us": self._host_sees_us(device), "copies": self._copies(device)}
        return found

    def _copies(self, device: torch.device) -> list[dict[str, Any]]:
        found = []
        for size in COPIED_BYTES if self.beside is not None else ():
            own = torch.zeros(size, dtype=torch.uint8, device=device)
            other = torch.zeros(size, dtype=torch.uint8, device=self.beside)
            seconds = seconds_per_call(lambda own=own, other=other: other.copy_(own), device, repeats=self.repeats)  # type: ignore[misc]
            found.append({"to": self.beside, "bytes": size, "us": 1e6 * seconds})
        return found

    def _host_sees_us(self, device: torch.device) -> float:
        """From the launch of a graph until the host has seen its result."""
        result, seen = torch.zeros(1, device=device), torch.zeros(1, pin_memory=True)
        graph = torch.cuda.CUDAGraph()
        result.add_(1)
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph):
            result.add_(1)
            seen.copy_(result, non_blocking=True)
        times = []
        for _ in range(50 + self.repeats):
            before, start_s = float(seen), time.perf_counter()
            graph.replay()
            while float(seen) == before and time.perf_counter() - start_s < 1.0:
                pass
            times.append(1e6 * (time.perf_counter() - start_s))
        torch.cuda.synchronize(device)
        return statistics.median(times[10:])
