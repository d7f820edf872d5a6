"""Which CUDA graph is being captured, beside a progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ssd_lab.engine.observing import ExecutorObserver


class CaptureProgress(ExecutorObserver):
    """Says beside a bar which CUDA graph is being captured: the first round of a shape takes seconds, not milliseconds.

    count: how many there were so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._bar: Any = None
        self._is_shown = False

    @contextmanager
    def beside(self, bar: Any) -> Iterator[None]:
        """Within this, say it there."""
        self._bar, self._is_shown = bar, False
        try:
            yield
        finally:
            self._bar, self._is_shown = None, False

    def capturing(self, name: str) -> None:
        """A graph of this phase is about to be captured."""
        self.count += 1
        if self._bar is not None and not self._bar.disable:
            waited = time.time() - self._bar.start_t >= self._bar.delay
            self._bar.set_postfix_str(f"capturing graph {self.count}, {name}", refresh=waited)
            self._is_shown = True

    def done(self) -> None:
        """The round is over: nothing is being captured."""
        if self._is_shown:
            self._bar.set_postfix_str("", refresh=False)
            self._is_shown = False
