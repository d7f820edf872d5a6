"""The map's point of this machine, from two real runs."""

from __future__ import annotations

import ssd_lab
from ssd_lab.widgets import SpeedMap


def test_a_comparison_gives_this_machines_point():
    found = ssd_lab.compare(
        "Explain gravity to a child.", strategies=["sync_chain", "async_tree"], k=3, max_tokens=24, threads=1,
        draft_link="thread", repeats=1, progress=False,
    )  # fmt: skip
    here = SpeedMap({}, runs=found, k=3).points[-1]
    assert here["draft_time"] > 0 and here["gain"] > 0
    assert here["hit_rate"] == found["async_tree"].metrics.cache_hit_rate
