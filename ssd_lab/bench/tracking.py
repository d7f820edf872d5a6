"""Keeps a tracker's runs beside the measuring: each is begun, followed and ended, and its trouble stays its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.live import LiveState
from ssd_lab.bench.repeat import RepeatResult
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.trackers import Ending, TrackedRun, Tracker

_log = logging.getLogger(__name__)


class Tracking:
    """The open runs of a tracker, by any key; without a tracker every call does nothing.

    A context manager: a run that is still open when it is left ends as `interrupted` after Ctrl-C, as `failed` after
    any other error. A tracker that raises in the middle loses that run, with a warning, and the measurement goes on.
    """

    def __init__(self, tracker: Tracker | None) -> None:
        self._tracker = tracker
        self._open: dict[Hashable, TrackedRun] = {}

    @property
    def active(self) -> bool:
        """Is there a tracker at all?"""
        return self._tracker is not None

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        ending: Ending = "interrupted" if kind is not None and issubclass(kind, KeyboardInterrupt) else "failed"
        told = None if ending == "interrupted" or error is None else f"{type(error).__name__}: {error}"
        for key in list(self._open):
            self._end(key, ending, told)

    def begin(self, key: Hashable, config: BenchConfig, group: str | None, name: str | None) -> None:
        """A run starts. Raises ConfigError if the tracker refuses it."""
        if self._tracker is not None:
            self._open[key] = self._tracker.start(config, group, name)

    def live(self, key: Hashable, state: LiveState) -> None:
        """A moment of that run."""
        self._try(key, lambda run: run.live(state))

    def repeat(self, key: Hashable, dataset: str, index: int, measured: RepeatResult) -> None:
        """A repeat of that run is over."""
        self._try(key, lambda run: run.repeat(dataset, index, measured))

    def result(self, key: Hashable, result: BenchResult) -> None:
        """That run is over, and this is what it gave."""
        self._try(key, lambda run: run.result(result))
        self._end(key, "finished", None)

    def failed(self, key: Hashable, error: str) -> None:
        """That run ended by an error."""
        self._end(key, "failed", error)

    def _end(self, key: Hashable, ending: Ending, error: str | None) -> None:
        self._try(key, lambda run: run.finish(ending, error))
        self._open.pop(key, None)

    def _try(self, key: Hashable, call: Callable[[TrackedRun], None]) -> None:
        run = self._open.get(key)
        if run is None:
            return
        try:
            call(run)
        except Exception as error:  # of any kind: a tracker must not cost a measurement
            self._open.pop(key, None)
            _log.warning("the tracker lost a run, and the measurement goes on without it: %s", error)
