"""Ctrl-C before a command has begun: one line. Imports nothing that takes time."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def starting() -> None:
    """From here on Ctrl-C ends the program in one line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody wants it to be ignored
        signal.signal(signal.SIGINT, _leave)


def begun() -> None:
    """A command begins, which knows what to say when Ctrl-C comes."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    """No exception, which half an import may swallow or wrap: nothing has been done yet."""
    os.write(2, b"interrupted before anything was done\n")
    os._exit(INTERRUPTED)
