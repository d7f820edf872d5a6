"""Graphs on a CPU: a backend that replays what CUDA graphs would, and its place in engines and their drafts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssd_lab.engine import worker_setup
from ssd_lab.engine.execution import Executor, Tensors
from ssd_lab.engine.graphs import GraphExecutor
from ssd_lab.engine.observing import ExecutorObserver


class ReplayBackend:
    """Runs a captured function again at each replay and puts its results where the first ones were.

    As on a GPU, nothing but the contents of the input buffers can reach a replay, and results stay in place.
    """

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def warm_up(self, function: Callable[[], Tensors]) -> None:
        function()

    def capture(self, function: Callable[[], Tensors]) -> tuple[Callable[[], Any], Tensors]:
        self.captured += 1
        outputs = tuple(tensor.clone() for tensor in function())
        for tensor in outputs:  # a capture computes nothing: whoever does not replay reads garbage
            tensor.fill_(-1)

        def replay() -> None:
            self.replayed += 1
            with torch.inference_mode():
                for kept, fresh in zip(outputs, function(), strict=True):
                    kept.copy_(fresh)

        return replay, outputs


class Backends:
    """Every executor made during a test, with its backend."""

    def __init__(self) -> None:
        self.made: list[tuple[GraphExecutor, ReplayBackend]] = []

    def make(self, device: torch.device, *, eager: bool, observer: ExecutorObserver) -> Executor:
        backend = ReplayBackend()
        executor = GraphExecutor(backend, observer=observer)
        self.made.append((executor, backend))
        return executor

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> Backends:
        """Makes engines and inline drafts use graphs from now on."""
        own = cls()
        monkeypatch.setattr("ssd_lab.build.make_executor", own.make)
        monkeypatch.setattr(worker_setup, "make_executor", own.make)
        return own
