"""Times of work that is queued on a device, and the device's read bandwidth."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import torch

WARM_UPS = 3
CPU_ARRAY_BYTES = 1 << 28
GPU_ARRAY_BYTES = 1 << 32


def seconds_per_call(work: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """Median seconds of one call, by the device's own clock where it has one."""
    for _ in range(WARM_UPS):
        work()
    if device.type != "cuda":
        times = []
        for _ in range(repeats):
            start_s = time.perf_counter()
            work()
            times.append(time.perf_counter() - start_s)
        return statistics.median(times)
    torch.cuda.synchronize(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    torch.cuda.synchronize(device)
    return statistics.median(one.elapsed_time(two) for one, two in itertools.pairwise(events)) / 1e3


@torch.inference_mode()
def read_bandwidth(device: torch.device) -> float:
    """Bytes per second of a sum over an array far larger than any cache."""
    size = GPU_ARRAY_BYTES if device.type == "cuda" else CPU_ARRAY_BYTES
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 2)
    array = torch.ones(size // 4, device=device)
    return array.numel() * 4 / seconds_per_call(array.sum, device, repeats=10)
