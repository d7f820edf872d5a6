"""Hears of Triton kernels that are compiled, or found in its cache on disk, for the first time in this process."""

from __future__ import annotations

import time
import weakref
from typing import Any

from ssd_lab.execution.preparations import Preparations
from ssd_lab.trace.records import Activity

_TOLD: weakref.WeakSet[Preparations] = weakref.WeakSet()


def mark_compilations(preparations: Preparations) -> None:
    """Add a span to these for each compilation from now on, on the lane `target`, whoever needs the kernel.

    A Triton that has no place for listeners, or none at all, marks nothing.
    """
    try:
        from triton import knobs
    except ImportError:
        return
    if not hasattr(knobs, "compilation"):
        return
    _TOLD.add(preparations)
    if not isinstance(knobs.compilation.listener, _Listener):
        knobs.compilation.listener = _Listener(knobs.compilation.listener)


class _Listener:
    """There is one place for a listener in a process: whoever stood there before is told too."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, *, src: Any, times: Any, **others: Any) -> None:
        end_s = time.perf_counter()
        span = Activity("target", f"compile {getattr(src, 'name', 'a kernel')}", end_s - times.total / 1e6, end_s)
        for preparations in tuple(_TOLD):
            preparations.add(span)
        if self._before is not None:
            self._before(src=src, times=times, **others)
