"""What a caller sees while it waits: how far its requests are, and which CUDA graph is being captured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ssd_lab.common.progress import progress_bar
from ssd_lab.engine.call import Call, Ended, Step
from ssd_lab.engine.service import EngineService
from ssd_lab.execution.observing import ExecutorObserver
from ssd_lab.trace import Totals

OnStep = Callable[[int, Totals], bool | None]
TICK_S = 0.1  # between two looks at a bar


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


class Waiting:
    """Waits for calls of one engine. name: of the strategy, at the bar. longest: tokens of the longest sequence."""

    def __init__(self, service: EngineService, captures: CaptureProgress, *, name: str, longest: int, shown: bool):
        self._service, self._captures = service, captures
        self._name, self._longest, self._shown = name, longest, shown

    def until_ended(self, call: Call, on_step: OnStep | None) -> BaseException | None:
        """Until the call has ended, or `on_step` wants no more; why, if the engine failed."""
        total = sum(min(request.params.max_tokens, self._longest) for request in call.requests)
        with progress_bar(total, self._name, "tok", enabled=self._shown) as bar, self._captures.beside(bar):
            done, tick = 0, TICK_S if self._shown else None
            while not isinstance(event := self._service.next_event(call, tick), Ended):
                if self._shown:
                    now = self._tokens_done(call)
                    bar.update(now - done)
                    done = now
                if isinstance(event, Step) and on_step is not None:
                    if on_step(event.number, event.totals) is False:
                        self._service.cancel(call)
                        return None
                    self._service.step_done(call)
            if event.error is None:
                bar.update(total - done)  # in a notebook a bar that closes short of its end stays, and in red
        return event.error

    def _tokens_done(self, call: Call) -> int:
        """Of the most that were asked for; a request that ends early has no more to wait for."""
        return sum(
            min(s.params.max_tokens, self._longest) if s.end_s is not None else len(s.token_ids) - len(s.prompt_ids)
            for s in call.sequences
        )
