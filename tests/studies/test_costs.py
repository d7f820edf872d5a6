"""Costs: a run's memory is read in a process of its own, watching is measured in pairs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ssd_lab.bench.config import BenchConfig
from ssd_lab.errors import ConfigError, SsdLabError
from studies.costs.memory import measure_memory, table
from studies.costs.watching import main, watching_cost


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_what_a_run_takes_beside_python_torch_and_the_weights() -> None:
    used = measure_memory("async_tree", max_tokens=4, k=2, f=1)
    assert used.target_weights_bytes > 30e6 > used.draft_weights_bytes > 5e6
    assert used.draft_peak_bytes is not None, "the draft works in a process of its own"
    assert min(used.target_peak_bytes, used.draft_peak_bytes) > used.base_bytes > 50e6
    assert 0 < used.beside_bytes < 200e6
    assert table([used]).to_text().splitlines()[-1].startswith("async_tree")


@pytest.mark.full
def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(SsdLabError, match=r"'async_tree' failed: .*k=0"):
        measure_memory("async_tree", k=0)


def test_the_cost_of_watching_is_measured_in_pairs(tiny_pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    flags = [
        "--target", tiny_pair.target, "--draft-model", tiny_pair.draft, "--spec", "--k", "2", "--numseqs", "2",
        "--input_len", "8", "--output_len", "6", "--threads", "1", "--dtype", "float32", "--random",
    ]  # fmt: skip
    found = json.loads(main([*map(str, flags), "--repeats", "6", "--json"]))
    assert len(found["plain"]) == len(found["watched"]) == 6
    assert found["ratio"]["low"] <= found["ratio"]["mean"] <= found["ratio"]["high"]
    with pytest.raises(ConfigError, match="the cost is measured of one run"):
        main([*map(str, flags), "--sweep", "[{}]"])


@pytest.mark.extended
@pytest.mark.full
def test_tracing_and_the_bar_are_not_shown_to_cost_over_three_percent():
    """Processor time and the interval's lower end, since others may use this machine; the docs have the clock's."""
    config = BenchConfig(num_sequences=2, input_len=16, output_len=12, threads=1, strategy="autoregressive")
    assert watching_cost(config, pairs=10).cpu_ratio.low < 1.03
