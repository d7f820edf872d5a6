"""A whole process to its first token, timed from outside."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError
from ssd_lab.profile import starts
from ssd_lab.profile.starts import measure_starts


@pytest.mark.full
def test_each_process_is_timed_until_its_first_token(tiny_pair: Any) -> None:
    """The engine is asked for a second token, and closed, after the time that counts."""
    arguments = {"target": str(tiny_pair.target), "draft": str(tiny_pair.draft), "k": 2, "f": 1, "threads": 1}
    start_s = time.perf_counter()
    found = measure_starts("async_tree", arguments | {"draft_link": "inline"}, limit_s=60)
    took_s = time.perf_counter() - start_s
    assert [one.kernels for one in found] == ["nothing compiled", "compiled", "compiled, once more"]
    assert all(one.seconds > 0.3 for one in found) and sum(one.seconds for one in found) < took_s
    assert f"| async_tree | compiled | {found[1].seconds:.1f} |" in starts.markdown(found)


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(ConfigError, match=r"ended with 1 after \d+ s.*nowhere"):
        measure_starts("autoregressive", {"target": "/nowhere"}, limit_s=60)


def test_a_process_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ConfigError, match="has none after 0 s"):
        measure_starts("autoregressive", {}, limit_s=0.05)


@pytest.mark.full
def test_the_command_measures_them_with_everything_else(
    tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssd_lab.profile import prompts

    for name, value in {"REPEATS": 1, "UNTIMED": 0, "TOGETHER": (2, 8), "OUTPUT": 8, "LENGTHS": (20,)}.items():
        monkeypatch.setattr(prompts, name, value)
    monkeypatch.setattr(prompts, "REQUESTS", 4)
    pair = ["--target", str(tiny_pair.target), "--draft", str(tiny_pair.draft)]
    small = ["--k", "2", "--f", "1", "--batch", "1", "--context", "32", "--passes", "1", "-s", "sync_chain"]
    more = ["--prompts", "--no-peer", "--starts", "--device", "cpu", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["profile", *pair, *small, *more])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles[-4:] == [
        "## Prompts to their first token",
        "## Whole runs",
        "## A long prompt beside requests that decode",
        "## A whole process to its first token",
    ]
    measured = json.loads((tmp_path / "measurement.json").read_text(encoding="utf-8"))
    assert len(measured["starts"]) == 3 and len(measured["prompts"]["prompts"]) == 2
