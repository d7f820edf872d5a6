"""Engines that stand still while a test looks at what is under way, however quick they are."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from ssd_lab.engine.engine import Engine

LIMIT_S = 90.0  # below a test's own limit


class Hold:
    """Called, it lets every engine of this process do `after` more steps in all; those that follow do nothing until
    `release`. Requests stay under way meanwhile, and are told, cancelled and ended as ever.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self._right = monkeypatch, Engine.step
        self._released, self._left, self._end_s = threading.Event(), 0, 0.0

    def __call__(self, after: int = 30) -> None:
        self._left, self._end_s = after, time.monotonic() + LIMIT_S
        hold = self
        self._patch.setattr(Engine, "step", lambda engine: hold._step(engine))

    def release(self) -> None:
        """Let them go on."""
        self._released.set()

    def _step(self, engine: Engine) -> Any:
        if self._left > 0 or self._released.is_set() or time.monotonic() > self._end_s:
            self._left -= 1
            return self._right(engine)
        self._released.wait(0.005)
        return []
