"""Which CUDA graph is being captured, beside a progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ssd_lab.execution.observing import ExecutorObserver


class CaptureProgress(ExecutorObserver):
    """Says beside a bar which CUDA graph is being captured: the first round of a shape takes seconds, not milliseconds.

    count: how many there were so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._bars: list[Any] = []  # of the callers who wait

    @contextmanager
    def beside(self, bar: Any) -> Iterator[None]:
        """Within this, say it there, too."""
        self._bars.append(bar)
        try:
            yield
        finally:
            self._bars.remove(bar)

    def capturing(self, name: str) -> None:
        """A graph of this phase is about to be captured."""
        self.count += 1
        self._show(f"capturing graph {self.count}, {name}")

    def captured(self, name: str, start_s: float, end_s: float) -> None:
        """It is over."""
        self._show("")

    def _show(self, text: str) -> None:
        for bar in self._bars[:]:
            if not bar.disable:
                waited = time.time() - bar.start_t >= bar.delay
                bar.set_postfix_str(text, refresh=waited and bool(text))
