"""Waiting for a device, with a limit."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Protocol

from ssd_lab.errors import DeviceTimeoutError

LIMIT_S = 600.0  # no step takes as long, not even under a checker of memory
_give_way = getattr(os, "sched_yield", partial(time.sleep, 0))  # where there is both: a sleep of 0 s takes 50 us


class Mark(Protocol):
    """An event of a device's stream."""

    def query(self) -> bool:
        """Has the device come past it?"""
        ...


def wait_for(mark: Mark, what: str, *, limit_s: float = LIMIT_S) -> None:
    """Until the device has come past the mark: it looks all the time, as the driver's own wait does, but not for ever.

    Raises DeviceTimeoutError that says what was waited for.
    """
    if mark.query():
        return
    end_s = time.monotonic() + limit_s
    while not mark.query():
        if time.monotonic() > end_s:
            raise DeviceTimeoutError(
                f"the device did not finish {what} within {limit_s:g} s: it hangs, or something else keeps it busy "
                "(nvidia-smi tells); end this process, since what it waits for may still be running"
            )
        _give_way()  # other threads of this process may go on meanwhile
