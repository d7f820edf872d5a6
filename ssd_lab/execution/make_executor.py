"""Which executor a device gets: the only place that decides."""

from __future__ import annotations

import torch

from ssd_lab.execution.debug_graphs import DebugGraphExecutor, ScribblingBackend
from ssd_lab.execution.executor import EagerExecutor, Executor
from ssd_lab.execution.graphs import CudaGraphBackend, GraphExecutor
from ssd_lab.execution.observing import NOBODY, ExecutorObserver


def make_executor(
    device: torch.device, *, eager: bool, observer: ExecutorObserver = NOBODY, debug_memory: bool = False
) -> Executor:
    """Graphs on a CUDA device unless `eager`; elsewhere phases are called as they are. debug_memory: graphs for finding
    faults.
    """
    if eager or device.type != "cuda":
        return EagerExecutor(device)
    if debug_memory:
        return DebugGraphExecutor(ScribblingBackend(device), observer=observer)
    return GraphExecutor(CudaGraphBackend(device), observer=observer)
