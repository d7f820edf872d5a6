"""Progress bars for anything that may take over two seconds; in a notebook, a terminal, or nowhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm


def notice(text: str, *, enabled: bool) -> None:
    """Lines for a person who waits, on stderr, above the bars."""
    if enabled:
        tqdm.write(text, file=sys.stderr)


class CaptureProgress:
    """Says beside a bar which CUDA graph is being captured: the first round of a shape takes seconds, not milliseconds.

    captured: how many there were so far.
    """

    def __init__(self) -> None:
        self.captured = 0
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

    def __call__(self, phase: str) -> None:
        """A graph of this phase is about to be captured."""
        self.captured += 1
        if self._bar is not None and not self._bar.disable:
            waited = time.time() - self._bar.start_t >= self._bar.delay
            self._bar.set_postfix_str(f"capturing graph {self.captured}, {phase}", refresh=waited)
            self._is_shown = True

    def done(self) -> None:
        """The round is over: nothing is being captured."""
        if self._is_shown:
            self._bar.set_postfix_str("", refresh=False)
            self._is_shown = False


def progress_bar(
    total: int | None,
    description: str,
    unit: str,
    *,
    enabled: bool,
    unit_scale: bool = False,
    layout: str | None = None,
) -> Any:
    """A tqdm bar that shows itself only once the work has taken two seconds, if at all.

    unit_scale writes M and G; layout is tqdm's `bar_format`.
    """
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=unit_scale,
        disable=not enabled,
        delay=2.0,
        leave=False,
        dynamic_ncols=True,
        bar_format=layout,
    )
