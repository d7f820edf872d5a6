"""Graphs on a CPU: a backend that replays what CUDA graphs would, and its place in engines and their drafts."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from ssd_lab.drafting import worker_setup
from ssd_lab.execution.debug_graphs import DebugGraphExecutor, poison
from ssd_lab.execution.executor import Executor
from ssd_lab.execution.graphs import GraphExecutor
from ssd_lab.execution.observing import ExecutorObserver, Replay
from ssd_lab.execution.structure import Tensors


class ReplayBackend:
    """Runs a captured function again at each replay and puts its results where the first ones were.

    As on a GPU, nothing but the contents of the input buffers can reach a replay, and results stay in place. Whatever
    a capture makes lies in a pool that all captures share, where each replay leaves garbage for the others: on a GPU
    it is the captures before that do, which the order of a run's captures decides.
    """

    def __init__(self) -> None:
        self.captured = self.replayed = 0
        self._pool: dict[int, list[torch.Tensor]] = {}

    def warm_up(self, function: Callable[[], Tensors]) -> Tensors:
        return function()

    def capture(self, function: Callable[[], Tensors]) -> tuple[Replay, Tensors]:
        self.captured += 1
        own, outputs = self.captured, function()
        # what lies in the same place twice was there before
        made = [kept for kept, again in zip(outputs, function(), strict=True) if not same_place(kept, again)]
        self._pool[own] = made
        for tensor in outputs:  # a capture computes nothing: whoever does not replay reads garbage
            tensor.fill_(-1)

        def replay() -> None:
            self.replayed += 1
            with torch.inference_mode():
                for kept, fresh in zip(outputs, function(), strict=True):
                    if not same_place(kept, fresh):
                        kept.copy_(fresh)
                for other, tensors in self._pool.items():
                    for tensor in tensors if other != own else ():
                        poison(tensor)

        return replay, outputs


def same_place(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.data_ptr() == two.data_ptr()


class Backends:
    """Every executor made during a test, with its backend. All of them poison what may no longer be read.

    recapture_every: see `DebugGraphExecutor`; by default what is captured stays.
    """

    def __init__(self, recapture_every: int = sys.maxsize) -> None:
        self.made: list[tuple[GraphExecutor, ReplayBackend]] = []
        self._recapture_every = recapture_every

    def make(self, device: torch.device, *, eager: bool, observer: ExecutorObserver, debug_memory: bool) -> Executor:
        backend = ReplayBackend()
        executor = DebugGraphExecutor(backend, observer=observer, recapture_every=self._recapture_every)
        self.made.append((executor, backend))
        return executor

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch, recapture_every: int = sys.maxsize) -> Backends:
        """Makes engines and inline drafts use graphs from now on."""
        own = cls(recapture_every)
        monkeypatch.setattr("ssd_lab.assembly.build.make_executor", own.make)
        monkeypatch.setattr(worker_setup, "make_executor", own.make)
        return own
