"""Times of kernels that follow each other in a CUDA graph, as in an engine."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

GRAPH_REPLAYS = 7


def graph_us(call: Callable[[int], object], calls: int) -> float:
    """Microseconds of one of many calls that follow each other in a CUDA graph; the median of some replays.

    call: gets its number, 0 to calls - 1, and leaves its work on the current stream.
    """
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call(0)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for number in range(calls):
            call(number)
    graph.replay()
    times = []
    for _ in range(GRAPH_REPLAYS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / calls)
    return statistics.median(times)
