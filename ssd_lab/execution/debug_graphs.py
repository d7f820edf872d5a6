"""Graphs for finding faults: what may no longer be read is poisoned, and the order of captures keeps changing.

`EngineConfig.debug_memory` puts them in the place of the plain ones. A reader that keeps outputs for too long, or an
output that lies where other graphs write, then shows in texts and traces, or as ids that no vocabulary has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ssd_lab.execution.graphs import CudaGraphBackend, GraphBackend, GraphedCall, GraphExecutor
from ssd_lab.execution.observing import NOBODY, ExecutorObserver, Replay
from ssd_lab.execution.phase import AnyPhase
from ssd_lab.execution.structure import Structure, Tensors, flatten

IMPOSSIBLE_ID = -(2**62)
RECAPTURE_EVERY = 101  # calls; no multiple of a round's phases, so that captures fall into every part of a round
_BITS = 0x7FC0  # not a number as bfloat16, float16 or (twice) float32; as int64 (four times) no token's id
_LARGE = 1 << 20  # bytes; torch keeps smaller pieces of a pool apart


def poison(tensor: torch.Tensor) -> None:
    """Make it say that nobody should have read it: NaN, an impossible id, or True."""
    if tensor.dtype == torch.bool:
        tensor.fill_(True)
    elif tensor.dtype.is_floating_point:
        tensor.fill_(torch.nan)
    else:
        tensor.fill_(max(IMPOSSIBLE_ID, torch.iinfo(tensor.dtype).min))


class DebugGraphExecutor(GraphExecutor):
    """Poisons what a phase's earlier calls returned before its next replay, and captures one of its phases anew every
    so many calls, in turn: of any two each is sometimes captured before the other.
    """

    def __init__(
        self,
        backend: GraphBackend,
        *,
        observer: ExecutorObserver = NOBODY,
        recapture_every: int = RECAPTURE_EVERY,
    ) -> None:
        super().__init__(backend, observer=observer)
        self._recapture_every = recapture_every
        self._names: list[str] = []  # of all phases; the one that was captured anew longest ago comes first

    def call(self, phase: AnyPhase, runner: Any, inputs: Any) -> Any:
        """As `GraphExecutor` does."""
        if not phase.captured:
            return phase.run(runner, inputs)
        if phase.name not in self._names:
            self._names.append(phase.name)
        if self._num_calls % self._recapture_every == self._recapture_every - 1:
            device = flatten(inputs)[0][0].device
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            self._names.append(self._names.pop(0))
            self.forget(self._names[-1])
        return super().call(phase, runner, inputs)

    def _captured(self, phase: AnyPhase, runner: Any, inputs: Tensors, structure: Structure) -> GraphedCall:
        call, name = super()._captured(phase, runner, inputs, structure), phase.name

        def poisoned_replay() -> None:  # inputs have been read: they may be what the last call returned
            for other in self._calls.values():
                for tensor in other.outputs if other.name == name else ():
                    poison(tensor)
            call.replay()

        return replace(call, replay=poisoned_replay)


class ScribblingBackend(CudaGraphBackend):
    """CUDA graphs whose pool is full of garbage after every replay, wherever no live tensor of a capture lies."""

    def capture(self, function: Callable[[], Tensors]) -> tuple[Replay, Tensors]:
        """Capture, and after it a graph that writes to all that is free in the pool: what any later one may do."""
        replay, outputs = super().capture(function)
        self._scribble = self._captured_scribble()

        def scribbled_replay() -> None:
            replay()
            self._scribble()

        return scribbled_replay, outputs

    def _captured_scribble(self) -> Replay:
        sizes = self._free_sizes()
        if not sizes:
            return lambda: None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            pieces = [torch.empty(size // 2, dtype=torch.int16, device=self._device) for size in sizes]
            for piece in pieces:
                piece.fill_(_BITS)
        return graph.replay

    def _free_sizes(self) -> list[int]:
        """Bytes of the free pieces of the pool, the largest first, so that each goes to a tensor of its size."""
        segments = [own for own in torch.cuda.memory_snapshot() if tuple(own["segment_pool_id"]) == tuple(self._pool)]
        free = [(own, block["size"]) for own in segments for block in own["blocks"] if block["state"] == "inactive"]
        small = [min(size, _LARGE) for own, size in free if own["segment_type"] == "small"]
        large = [size for own, size in free if own["segment_type"] == "large" and size > _LARGE]
        return sorted(small + large, reverse=True)
