"""The memory of a run is read in a process of its own."""

from __future__ import annotations

import sys

import pytest

from ssd_lab.bench.memory import measure_memory
from ssd_lab.errors import SsdLabError


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_what_a_run_takes_beside_python_torch_and_the_weights() -> None:
    used = measure_memory("async_tree", max_tokens=4, k=2, f=1)
    assert used.target_weights_bytes > 30e6 > used.draft_weights_bytes > 5e6
    assert used.draft_peak_bytes is not None, "the draft works in a process of its own"
    assert min(used.target_peak_bytes, used.draft_peak_bytes) > used.base_bytes > 50e6
    assert 0 < used.beside_bytes < 200e6


@pytest.mark.full
def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(SsdLabError, match=r"'async_tree' failed: .*k=0"):
        measure_memory("async_tree", k=0)
