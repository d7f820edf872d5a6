"""Listening to an executor: what it captures, when, and each replay of it."""

from __future__ import annotations

from collections.abc import Callable

Replay = Callable[[], object]


class ExecutorObserver:
    """Told what an executor does besides running phases, in whatever thread it works. This one does not listen."""

    def capturing(self, name: str) -> None:
        """A graph of the phase `name` is about to be captured."""

    def captured(self, name: str, start_s: float, end_s: float) -> None:
        """It was captured, kernels compiled for it included, in this span of the monotonic clock."""

    def replay(self, name: str, replay: Replay) -> Replay:
        """What the executor is to call for a replay of the new graph: `replay` itself, or something around it."""
        return replay


NOBODY = ExecutorObserver()


class Observers(ExecutorObserver):
    """Several, told in turn."""

    def __init__(self, *observers: ExecutorObserver) -> None:
        self._observers = observers

    def capturing(self, name: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.capturing(name)

    def captured(self, name: str, start_s: float, end_s: float) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.captured(name, start_s, end_s)

    def replay(self, name: str, replay: Replay) -> Replay:
        """Each around the one before."""
        for observer in self._observers:
            replay = observer.replay(name, replay)
        return replay
