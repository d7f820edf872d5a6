"""Phases as captured graphs: one launch for all of a phase's kernels, replayed for every round of the same shape."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from ssd_lab.engine.execution import EagerExecutor, Executor, PhaseFunction, Tensors
from ssd_lab.engine.observing import NOBODY, ExecutorObserver, Replay
from ssd_lab.errors import CacheCapacityError
from ssd_lab.out_of_memory import explain_out_of_memory

logger = logging.getLogger(__name__)

WARM_UPS = 2  # runs before a capture: kernels are compiled and library handles made where that is still allowed
SMALLEST_CONTEXT = 512  # tokens; contexts are planned for in powers of two from here on


def batch_bucket(rows: int) -> int:
    """The batch size that a graph is captured for: a power of two up to 8, then a multiple of 8."""
    if rows <= 8:
        return 1 << (rows - 1).bit_length()
    return -(-rows // 8) * 8


def context_bucket(context_length: int) -> int:
    """The context length that a graph is captured for: a power of two."""
    return max(SMALLEST_CONTEXT, 1 << (context_length - 1).bit_length())


class GraphBackend(Protocol):
    """Captures a function's work once, and does it again."""

    def warm_up(self, function: Callable[[], Tensors]) -> None:
        """Run it a few times, as preparation."""
        ...

    def capture(self, function: Callable[[], Tensors]) -> tuple[Replay, Tensors]:
        """Record the work; returns what replays it, and its outputs, which each replay fills anew."""
        ...


class CudaGraphBackend:
    """CUDA graphs of one device that share one memory pool."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], Tensors]) -> None:
        """On a side stream, so that nothing of it is kept in the caching allocator's blocks of the main stream."""
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.current_stream(self._device).wait_stream(side)

    def capture(self, function: Callable[[], Tensors]) -> tuple[Replay, Tensors]:
        """Capture on a stream of its own; other threads and streams may work meanwhile."""
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = function()
        return graph.replay, outputs


@dataclass(frozen=True)
class GraphedCall:
    """A captured phase: its input buffers, what replays it, and the outputs that a replay fills."""

    inputs: Tensors
    replay: Replay
    outputs: Tensors

    def __call__(self, inputs: Tensors) -> Tensors:
        """Replay on these inputs. An input that lies where the graph reads it is not copied."""
        for buffer, given in zip(self.inputs, inputs, strict=True):
            if buffer is not given and buffer.data_ptr() != given.data_ptr():
                buffer.copy_(given, non_blocking=True)
        self.replay()
        return self.outputs


class GraphExecutor(Executor):
    """Captures each phase once for every shape that occurs, lazily, and replays it from then on.

    persistent: buffers whose place never changes (see `Placement`): graphs read them where they are. All graphs share
    one pool; that is safe because the phases of one executor run one after the other on one stream, and an output is
    used before the same executor's next phase of that name.
    """

    def __init__(self, backend: GraphBackend, *, observer: ExecutorObserver = NOBODY) -> None:
        self._backend = backend
        self._observer = observer
        self._calls: dict[Hashable, GraphedCall] = {}
        self._persistent: set[int] = set()

    @property
    def runs_behind(self) -> bool:
        """A replay is queued."""
        return True

    def bucket(self, rows: int) -> int:
        """See `batch_bucket`."""
        return batch_bucket(rows)

    def context_bound(self, context_length: int) -> int:
        """See `context_bucket`."""
        return context_bucket(context_length)

    def keep_in_place(self, tensors: Iterable[torch.Tensor]) -> None:
        """These tensors stay where they are for as long as this executor lives."""
        self._persistent |= {tensor.data_ptr() for tensor in tensors}

    def call(self, name: str, static: Hashable, function: PhaseFunction, *inputs: torch.Tensor) -> Tensors:
        """Replay the phase's graph for these shapes, capturing it first if there is none."""
        key = (name, static, tuple((tensor.shape, tensor.dtype) for tensor in inputs))
        found = self._calls.get(key)
        if found is None:
            found = self._calls[key] = self._captured(name, function, inputs)
        return found(inputs)

    def _captured(self, name: str, function: PhaseFunction, inputs: Tensors) -> GraphedCall:
        start_s = time.perf_counter()
        self._observer.capturing(name)
        buffers = tuple(
            tensor if tensor.data_ptr() in self._persistent else tensor.clone(memory_format=torch.contiguous_format)
            for tensor in inputs
        )
        with explain_out_of_memory(
            f"capturing {name} for {inputs[0].shape[0]} rows as graph number {len(self._calls) + 1}",
            CacheCapacityError,
            device=inputs[0].device,
            change="lower max_batch, or num_blocks so that more is left for graphs, or give eager=True",
        ):
            self._backend.warm_up(lambda: function(*buffers))
            replay, outputs = self._backend.capture(lambda: function(*buffers))
        end_s = time.perf_counter()
        self._observer.captured(name, start_s, end_s)
        logger.debug("captured %s for %s in %.2f s", name, [tuple(b.shape) for b in buffers], end_s - start_s)
        return GraphedCall(buffers, self._observer.replay(name, replay), outputs)


def make_executor(device: torch.device, *, eager: bool, observer: ExecutorObserver = NOBODY) -> Executor:
    """Graphs on a CUDA device unless `eager`; elsewhere phases are called as they are."""
    if eager or device.type != "cuda":
        return EagerExecutor(device)
    return GraphExecutor(CudaGraphBackend(device), observer=observer)
