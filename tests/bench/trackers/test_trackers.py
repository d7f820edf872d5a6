"""Weights & Biases gets config, rows and figures while they are measured (the real client, offline)."""

from __future__ import annotations

import dataclasses
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.live import LiveState
from ssd_lab.bench.measure import RepeatDone, run_benchmark
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.trackers import LIVE_ROW_S, PROJECT, Tracking, WandbTracker, live_row, repeat_row, summary
from ssd_lab.errors import ConfigError

BLOCK_BYTES, HEADER_BYTES = 32768, 7


@pytest.fixture(scope="module")
def result(tiny_pair: Any) -> BenchResult:
    config = BenchConfig(
        strategy="sync_chain", strategy_fields={"k": 2}, target=tiny_pair.target, draft=tiny_pair.draft,
        datasets=("example",), num_sequences=2, input_len=16, output_len=8, max_model_len=64, block_size=16,
        threads=1, dtype="float32", device="cpu", repeats=2, warmup=0,
    )  # fmt: skip
    measured = run_benchmark(config)
    quality = {"gsm8k": {"accuracy": 0.5, "num_scored": 2, "num_passed": 1}}
    peer = {"tokens_per_second": 10.0, "own_tokens_per_second": 20.0, "own_speedup": 2.0, "num_same": None}
    return dataclasses.replace(measured, quality=quality, peers={"example": {"transformers": peer}})


def test_a_result_becomes_named_numbers(result: BenchResult):
    numbers = summary(result)
    speed = result.datasets["example"].estimates["decode_tokens_per_second"]
    assert numbers["example/decode_tokens_per_second"] == speed.mean
    assert numbers["example/decode_tokens_per_second/low"] == speed.low
    assert numbers["example/acceptance_rate"] == result.datasets["example"].estimates["acceptance_rate"].mean
    assert numbers["gsm8k/quality/accuracy"] == 0.5
    assert numbers["example/peers/transformers/own_speedup"] == 2.0
    assert "example/peers/transformers/num_same" not in numbers  # unknown numbers are left out
    assert numbers["exact"] is True


def test_a_repeat_becomes_a_row(result: BenchResult):
    repeat = result.datasets["example"].repeats[1]
    row = repeat_row("example", 1, repeat)
    assert row["repeat/index"] == 1
    assert row["repeat/example/total_tokens_per_second"] == 16 / repeat.wall_s
    assert row["repeat/example/acceptance_rate"] == repeat.totals.accepted / repeat.totals.tested
    assert "repeat/example/cache_hit_rate" not in row  # nothing was looked up


def moment(**fields: Any) -> LiveState:
    known: dict[str, Any] = {
        "place": 0, "label": "sync_chain", "dataset": "gsm8k", "repeat": 1, "num_tokens": 9, "expected_tokens": 16,
        "tokens_per_second": 30.0, "acceptance_rate": 0.5, "cache_hit_rate": None,
    }  # fmt: skip
    return LiveState(**{**known, **fields})


def test_a_moment_becomes_a_row_of_what_is_known_of_it():
    assert live_row(moment(), 2.5) == {
        "live/seconds": 2.5, "live/gsm8k/repeat": 1, "live/gsm8k/tokens": 9,
        "live/gsm8k/decode_tokens_per_second": 30.0, "live/gsm8k/acceptance_rate": 0.5,
    }  # fmt: skip


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    return pytest.importorskip("wandb", reason="wandb is not installed: pip install -e '.[wandb]'")


def test_the_real_client_writes_group_name_config_rows_and_figures(tmp_path: Path, result: BenchResult, wandb: Any):
    tracker = WandbTracker(mode="offline", folder=tmp_path)
    for name in ("first", None):
        run = tracker.start(result.config, "a group", name)
        for index, measured in enumerate(result.datasets["example"].repeats):
            run.live(moment(dataset="example", repeat=index))
            run.live(moment(dataset="example", repeat=index))  # comes too soon to be a row
            run.repeat("example", index, measured)
        run.result(result)
        run.finish("finished")
    first, second = _written(wandb, tmp_path)
    assert (first["name"], first["group"], first["project"]) == ("first", "a group", PROJECT)
    assert second["name"] == "sync_chain (k=2)"
    assert first["config"]["strategy_fields"] == {"k": 2}
    assert first["config"]["environment"]["run"]["dtype"] == "float32"
    for key, value in summary(result).items():
        assert first["summary"][key] == pytest.approx(value), key
    assert first["summary"]["ending"] == "finished" and first["exit_code"] == 0
    assert [row["repeat/index"] for row in first["history"] if "repeat/index" in row] == [0, 1]
    assert len([row for row in first["history"] if "live/seconds" in row]) == 1
    assert first["metrics"]["live/*"] == "live/seconds" and first["metrics"]["repeat/*"] == "repeat/index"


def test_rows_of_moments_are_some_seconds_apart(
    tmp_path: Path, result: BenchResult, wandb: Any, monkeypatch: pytest.MonkeyPatch
):
    from ssd_lab.bench import trackers

    clock = iter([0.0, 0.1, 0.2, LIVE_ROW_S + 0.2, LIVE_ROW_S + 0.3])  # the run begins, then four moments
    monkeypatch.setattr(trackers, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    run = WandbTracker(mode="offline", folder=tmp_path).start(result.config, None, None)
    for tokens in range(4):
        run.live(moment(num_tokens=tokens))
    run.finish("finished")
    (written,) = _written(wandb, tmp_path)
    assert [row["live/gsm8k/tokens"] for row in written["history"]] == [0, 2]


@pytest.mark.parametrize(
    ("error", "ending", "told"),
    [(KeyboardInterrupt(), "interrupted", None), (RuntimeError("out of memory"), "failed", "out of memory")],
)
def test_a_run_that_ends_early_is_closed_with_its_state_and_keeps_its_rows(
    tmp_path: Path, result: BenchResult, wandb: Any, error: BaseException, ending: str, told: str | None
):
    def stop(state: LiveState) -> None:
        tracking.live(0, state)
        if state.repeat == 1:
            raise error

    def keep(done: RepeatDone) -> None:
        tracking.repeat(0, done.dataset, done.index, done.measured)

    tracking = Tracking(WandbTracker(mode="offline", folder=tmp_path))
    tracking.begin(0, result.config, None, "short")
    with pytest.raises(type(error)), tracking:
        run_benchmark(result.config, on_live=stop, on_repeat=keep)
    (run,) = _written(wandb, tmp_path)
    assert run["summary"]["ending"] == ending and run["exit_code"] != 0
    assert (told is None and "error" not in run["summary"]) or told in run["summary"]["error"]
    assert [row["repeat/index"] for row in run["history"] if "repeat/index" in row] == [0]
    assert any("live/seconds" in row for row in run["history"])
    assert run["config"]["environment"]["versions"]["torch"]  # known from the beginning


def test_runs_that_take_turns_are_open_together(tmp_path: Path, result: BenchResult, wandb: Any):
    with Tracking(WandbTracker(mode="offline", folder=tmp_path)) as tracking:
        for key in ("a", "b"):
            tracking.begin(key, result.config, None, key)
        for index, measured in enumerate(result.datasets["example"].repeats):
            for key in ("a", "b"):
                tracking.repeat(key, "example", index, measured)
        for key in ("a", "b"):
            tracking.end(key, result)
    for run in _written(wandb, tmp_path):
        assert [row["repeat/index"] for row in run["history"]] == [0, 1]


def test_a_tracker_that_breaks_costs_its_run_and_nothing_else(result: BenchResult, caplog: pytest.LogCaptureFixture):
    class Broken:
        def start(self, *_: object) -> Broken:
            return self

        def live(self, _: LiveState) -> None:
            raise ConnectionResetError("its process is gone")

    with Tracking(Broken()) as tracking:  # type: ignore[arg-type]
        tracking.begin("run", result.config, None, None)
        tracking.live("run", moment())
        tracking.live("run", moment())
        tracking.end("run", result)
    assert [record.getMessage().endswith("its process is gone") for record in caplog.records] == [True]


def test_the_clients_own_settings_hold_where_nothing_is_given(
    tmp_path: Path, result: BenchResult, wandb: Any, monkeypatch: pytest.MonkeyPatch
):
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    WandbTracker().start(result.config, None, "run").finish("finished")
    (run,) = _written(wandb, tmp_path)
    assert run["project"] == "theirs"


@pytest.mark.parametrize(("call", "mode"), [("login", "online"), ("init", "offline")])
def test_a_client_that_refuses_is_quoted(
    result: BenchResult, wandb: Any, monkeypatch: pytest.MonkeyPatch, call: str, mode: Any
):
    def refuses(**_: object) -> None:
        raise wandb.errors.UsageError("no key")

    monkeypatch.setattr(wandb, call, refuses)
    with pytest.raises(ConfigError, match=r"no key.*`wandb login`.*WANDB_MODE=offline"):
        WandbTracker(mode=mode).start(result.config, None, None)


def test_without_wandb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"\.\[wandb\]'.*run table all the same"):
        WandbTracker()


def _written(wandb: Any, folder: Path) -> list[dict[str, Any]]:
    """The offline runs below a folder, by name; the client's service writes them a moment after a run is finished."""
    wandb.teardown()
    return sorted((_read(file) for file in folder.rglob("*.wandb")), key=lambda run: run["name"])


def _read(file: Path) -> dict[str, Any]:
    """An offline run as the client's own record types tell it."""
    from wandb.proto import wandb_internal_pb2

    run: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "metrics": {}}
    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            run |= {"name": record.run.display_name, "group": record.run.run_group, "project": record.run.project}
            _update(run["config"], record.run.config.update)
        elif record.HasField("config"):
            _update(run["config"], record.config.update)
        elif record.HasField("summary"):
            _update(run["summary"], record.summary.update)
        elif record.HasField("history"):
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            run["history"].append(row)
        elif record.HasField("metric"):
            run["metrics"][record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif record.HasField("exit"):
            run["exit_code"] = record.exit.exit_code
    return run


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)


def _records(content: bytes) -> Iterator[bytes]:
    """The records of the client's log: blocks of 32 KiB, each piece with checksum, length and kind before it."""
    assert content.startswith(b":W&B")
    at, parts = HEADER_BYTES, b""
    while at + HEADER_BYTES <= len(content):
        if BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES:
            at += BLOCK_BYTES - at % BLOCK_BYTES
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + HEADER_BYTES : at + HEADER_BYTES + length]
        at += HEADER_BYTES + length
        if kind in (1, 4):  # whole, or the last piece
            yield parts
            parts = b""
