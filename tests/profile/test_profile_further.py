"""What a profile is asked for besides: whatever fails, the rest is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ssd_lab.cli.main import app
from ssd_lab.errors import CacheCapacityError, ConfigError, RunInterrupted
from ssd_lab.profile.further import further
from ssd_lab.profile.points import Measurement
from ssd_lab.profile.starts import Start

NOTHING = Measurement(4.0, {"target": "t", "draft": "d"}, 2, (2, 1, 1), [])


def adds(name: str) -> Any:
    return lambda known: replace(known, starts=[*known.starts, Start(name, "compiled", 1.0)])


def raises(error: BaseException) -> Any:
    def step(known: Measurement) -> Measurement:
        raise error

    return step


def names(measured: Measurement) -> list[str]:
    return [one.strategy for one in measured.starts]


def test_a_step_that_fails_adds_nothing_and_the_others_do() -> None:
    first = CacheCapacityError("no room")
    measured, failure = further(NOTHING, [adds("a"), raises(first), adds("b"), raises(ConfigError("later"))])
    assert names(measured) == ["a", "b"] and failure is first
    assert further(NOTHING, []) == (NOTHING, None)


def test_ctrl_c_ends_the_steps() -> None:
    measured, failure = further(NOTHING, [adds("a"), raises(KeyboardInterrupt()), adds("b")])
    assert names(measured) == ["a"] and isinstance(failure, RunInterrupted) and failure.result is measured


def test_the_command_writes_what_it_has_before_it_fails(tiny_pair: Any, tmp_path: Path) -> None:
    options = ["--k", "2", "--f", "1", "--batch", "1", "--context", "32", "--no-rounds", "--ranks", "3"]
    result = CliRunner().invoke(app, ["profile", *tiny_pair.options, *options, "--out", str(tmp_path)])
    assert result.exit_code != 0 and "cannot be shared by 3" in " ".join(result.stderr.split())
    assert {path.name for path in tmp_path.iterdir()} == {"measurement.json", "report.md", "hardware.json"}


@pytest.mark.full
def test_ctrl_c_behind_the_rounds_is_told_and_loses_none(
    tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd_lab.profile.starts.measure_starts", lambda *_: raises(KeyboardInterrupt())(NOTHING))
    options = [
        "--k",
        "2",
        "--f",
        "1",
        "--batch",
        "1",
        "--context",
        "32",
        "--passes",
        "1",
        "-s",
        "sync_chain",
        "--starts",
    ]
    result = CliRunner().invoke(app, ["profile", *tiny_pair.options, *options, "--json", "--out", str(tmp_path)])
    assert result.exit_code == 130
    told = json.loads(result.stdout)
    assert told["interrupted"] and told["rounds"]
    assert json.loads((tmp_path / "measurement.json").read_text(encoding="utf-8"))["rounds"] == told["rounds"]
