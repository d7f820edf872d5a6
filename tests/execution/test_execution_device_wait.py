"""Every wait for a device has a limit, and what is there already is not waited for."""

from __future__ import annotations

import pytest
import torch

from ssd_lab.errors import DeviceTimeoutError
from ssd_lab.execution import device_wait, host_copy, stopwatch
from ssd_lab.execution.device_wait import wait_for
from ssd_lab.execution.host_copy import HostCopy


class After:
    """An event that a device comes past after so many looks."""

    def __init__(self, looks: float) -> None:
        self.looks, self.seen = looks, 0

    def query(self) -> bool:
        self.seen += 1
        return self.seen > self.looks


def test_what_is_there_costs_one_look() -> None:
    mark = After(0)
    wait_for(mark, "a step")
    assert mark.seen == 1


def test_what_comes_is_waited_for() -> None:
    mark = After(1000)
    wait_for(mark, "a step")
    assert mark.seen == 1001


def test_what_never_comes_is_named_after_the_limit() -> None:
    with pytest.raises(DeviceTimeoutError, match=r"did not finish the copy of a round's rows within 0\.05 s"):
        wait_for(After(float("inf")), "the copy of a round's rows", limit_s=0.05)


def test_a_copy_to_the_host_and_a_span_wait_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(mark: After, what: str) -> None:
        device_wait.wait_for(mark, what, limit_s=0.01)

    for module in (host_copy, stopwatch):
        monkeypatch.setattr(module, "wait_for", at_once)
    copy = HostCopy(torch.ones(2))
    copy._arrays, copy._event = None, After(float("inf"))  # as if it came from a device
    with pytest.raises(DeviceTimeoutError, match="copy of its results"):
        copy.arrays()
    span = stopwatch.DeviceSpan("draft", "tree", After(0), After(float("inf")), None)  # type: ignore[arg-type]
    with pytest.raises(DeviceTimeoutError, match="tree of the draft"):
        span.resolve()
