"""Phases as captured graphs: one launch for all of a phase's kernels, replayed for every round of the same shape."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from ssd_lab.common.out_of_memory import explain_out_of_memory
from ssd_lab.errors import CacheCapacityError
from ssd_lab.execution.executor import Executor
from ssd_lab.execution.observing import NOBODY, ExecutorObserver, Replay
from ssd_lab.execution.phase import AnyPhase
from ssd_lab.execution.phase_memory import PhaseMemory, leave
from ssd_lab.execution.structure import Structure, Tensors, flatten, unflatten

logger = logging.getLogger(__name__)

WARM_UPS = 2  # runs before a capture: kernels are compiled and library handles made where that is still allowed
SMALLEST_CONTEXT = 512  # tokens; contexts are planned for in powers of two from here on
REMEMBERED_USES = 4096  # shapes whose uses are counted before they are captured
MOST_GRAPHS = 256  # of one executor: a few MB each; those not used for longest make room and are captured again


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

    def warm_up(self, function: Callable[[], Tensors]) -> Tensors:
        """Run it a few times, as preparation; returns its last outputs, of which only the shapes are of use."""
        ...

    def capture(self, function: Callable[[], Tensors]) -> tuple[Replay, Tensors]:
        """Record the work, once the device is done with all that was queued; returns what replays it, and its outputs,
        which each replay fills anew. Those that the work itself allocates lie where replays of other captures write.
        """
        ...


class CudaGraphBackend:
    """CUDA graphs of one device that share one memory pool.

    A pool gives a capture what the captures before it no longer hold, which their replays go on writing to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # torch's own for captures is one of whichever device came first

    def warm_up(self, function: Callable[[], Tensors]) -> Tensors:
        """On a side stream, so that nothing of it is kept in the caching allocator's blocks of the main stream."""
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                outputs = function()
        torch.cuda.current_stream(self._device).wait_stream(side)
        return outputs

    def capture(self, function: Callable[[], Tensors]) -> tuple[Replay, Tensors]:
        """Capture on a stream of its own; other threads and streams may work meanwhile."""
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            outputs = function()
        return graph.replay, outputs


@dataclass
class GraphedCall:
    """A captured phase: its name, its input buffers, what replays it, and the outputs that a replay fills, as tensors
    and as the phase returns them. last_use: number of the executor's call that used it last.
    """

    name: str
    inputs: Tensors
    replay: Replay
    outputs: Tensors
    result: Any
    last_use: int = 0

    def ready(self, inputs: Tensors) -> Callable[[], Any]:
        """Put these inputs where the graph reads them; what is returned replays it."""
        _fill(self.inputs, inputs)
        return self._replayed

    def _replayed(self) -> Any:
        self.replay()
        return self.result


class GraphExecutor(Executor):
    """Captures each phase once for every shape that occurs, lazily, and replays it from then on.

    Graphs read persistent buffers (see `Placement`) where they are; other inputs and all outputs lie in memory of the
    phase's own. All graphs share one pool, and nothing in it outlives a replay: the last thing that a graph does is to
    copy its results out. So it does not matter in which order phases are captured or replayed, on one stream at a time.
    most_graphs: are kept, those used last.
    """

    def __init__(
        self, backend: GraphBackend, *, observer: ExecutorObserver = NOBODY, most_graphs: int = MOST_GRAPHS
    ) -> None:
        self._backend = backend
        self._observer = observer
        self._most_graphs = most_graphs
        self._calls: dict[Hashable, GraphedCall] = {}
        self._uses: Counter[Hashable] = Counter()  # of shapes that are not captured yet
        self._num_calls = 0
        self._memory = PhaseMemory()
        self._persistent: set[int] = set()

    @property
    def runs_behind(self) -> bool:
        """A replay is queued."""
        return True

    @property
    def captures(self) -> bool:
        """Each shape is captured apart."""
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

    def call(self, phase: AnyPhase, runner: Any, inputs: Any) -> Any:
        """Replay the phase's graph for these shapes, capturing it first if there is none."""
        return self.ready(phase, runner, inputs)()

    def ready(self, phase: AnyPhase, runner: Any, inputs: Any) -> Callable[[], Any]:
        """The phase's graph with its inputs in place, captured if there is none; what becomes no graph runs when it is
        started.
        """
        if not phase.captured:
            return partial(phase.run, runner, inputs)
        tensors, structure = flatten(inputs)
        key = (phase, structure, tuple([(tensor.shape, tensor.dtype) for tensor in tensors]))
        found = self._calls.get(key)
        if found is None:
            if not self._is_due(phase, key):
                return partial(phase.run, runner, inputs)
            found = self._calls[key] = self._captured(phase, runner, tensors, structure)
            self._forget_all_but_the_last()
        self._num_calls += 1
        found.last_use = self._num_calls
        return found.ready(tensors)

    def _is_due(self, phase: AnyPhase, key: Hashable) -> bool:
        """Is this shape of the phase to be captured now? If not, this use of it is counted."""
        if self._uses[key] >= phase.uses_before_capture:
            del self._uses[key]
            return True
        if len(self._uses) > REMEMBERED_USES:
            self._uses.clear()
        self._uses[key] += 1
        return False

    def forget(self, name: str) -> None:
        """Let go of the phase's graphs: each is captured again when it is called for. The device must be done with
        them.
        """
        for key in [key for key, call in self._calls.items() if call.name == name]:
            del self._calls[key]

    def release(self) -> None:
        """Also from calls that somebody keeps."""
        for call in self._calls.values():
            call.replay = _is_released
        self._calls.clear()

    def _forget_all_but_the_last(self) -> None:
        """After a capture, for which the device had come to rest."""
        *_, newest = self._calls
        while len(self._calls) > self._most_graphs:
            del self._calls[min(self._calls.keys() - {newest}, key=lambda key: self._calls[key].last_use)]

    def _captured(self, phase: AnyPhase, runner: Any, inputs: Tensors, structure: Structure) -> GraphedCall:
        start_s, name = time.perf_counter(), phase.name
        self._observer.capturing(name)
        with explain_out_of_memory(
            f"capturing {name} for {inputs[0].shape[0]} rows as graph number {len(self._calls) + 1}",
            CacheCapacityError,
            device=inputs[0].device,
            change="lower max_batch, or num_blocks so that more is left for graphs, or give eager=True",
        ):
            buffers = tuple(
                tensor if tensor.data_ptr() in self._persistent else self._memory.like((name, "in", place), tensor)
                for place, tensor in enumerate(inputs)
            )
            _fill(buffers, inputs)
            made: list[Structure] = []  # of what the phase returns; the last one counts

            def work() -> Tensors:
                tensors, own = flatten(phase.run(runner, unflatten(structure, buffers)))
                made.append(own)
                return tensors

            room = self._room_for(name, self._backend.warm_up(work))
            replay, outputs = self._backend.capture(lambda: leave(work(), room))
        end_s = time.perf_counter()
        self._observer.captured(name, start_s, end_s)
        logger.debug("captured %s for %s in %.2f s", name, [tuple(b.shape) for b in buffers], end_s - start_s)
        result = unflatten(made[-1], outputs)
        return GraphedCall(name, buffers, self._observer.replay(name, replay), outputs, result)

    def _room_for(self, name: str, outputs: Tensors) -> Tensors:
        return tuple(self._memory.like((name, "out", place), tensor) for place, tensor in enumerate(outputs))


def _is_released() -> None:
    raise RuntimeError("this graph was let go of: its engine is closed")


def _fill(buffers: Tensors, inputs: Tensors) -> None:
    """An input that lies where the graph reads it is not copied."""
    for buffer, given in zip(buffers, inputs, strict=True):
        if buffer is not given and buffer.data_ptr() != given.data_ptr():
            buffer.copy_(given, non_blocking=True)
