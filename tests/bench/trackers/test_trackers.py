"""Weights & Biases gets config, group, name and figures (the real client, offline); without it, results go on."""

from __future__ import annotations

import dataclasses
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.measure import run_benchmark
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.trackers import PROJECT, WandbTracker, history, summary
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


def test_each_repeat_is_a_row_of_the_history(result: BenchResult):
    rows = history(result)
    assert [row["repeat"] for row in rows] == [0, 1]
    repeat = result.datasets["example"].repeats[1]
    assert rows[1]["example/repeat/tokens_per_second"] == 16 / repeat.wall_s


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    return pytest.importorskip("wandb", reason="wandb is not installed: pip install 'ssd_lab[wandb]'")


def test_the_real_client_writes_group_name_config_and_figures(tmp_path: Path, result: BenchResult, wandb: Any):
    tracker = WandbTracker(mode="offline", folder=tmp_path)
    for name in ("first", None):
        tracker.start(result.config, "a group", name)
        tracker.log(result)
        tracker.finish()
    tracker.finish()  # twice is fine
    wandb.teardown()  # the client's service writes its files a moment after a run is finished
    first, second = sorted((_read(file) for file in tmp_path.rglob("*.wandb")), key=lambda run: run["name"])
    assert (first["name"], first["group"], first["project"]) == ("first", "a group", PROJECT)
    assert second["name"] == "sync_chain (k=2)"
    assert first["config"]["strategy_fields"] == {"k": 2}
    assert first["config"]["environment"]["run"]["dtype"] == "float32"
    for key, value in summary(result).items():
        assert first["summary"][key] == pytest.approx(value), key
    assert [row["repeat"] for row in first["history"]] == [0, 1]


def test_the_clients_own_settings_hold_where_nothing_is_given(
    tmp_path: Path, result: BenchResult, wandb: Any, monkeypatch: pytest.MonkeyPatch
):
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    tracker = WandbTracker()
    tracker.start(result.config, None, "run")
    tracker.finish()
    wandb.teardown()
    (file,) = tmp_path.rglob("*.wandb")
    assert _read(file)["project"] == "theirs"


def test_logging_before_a_run_is_started_is_refused(result: BenchResult, wandb: Any):
    with pytest.raises(ConfigError, match="call start"):
        WandbTracker(mode="offline").log(result)


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
    with pytest.raises(ConfigError, match=r"ssd_lab\[wandb\].*run table all the same"):
        WandbTracker()


def test_nothing_else_imports_it():
    import subprocess

    code = "import sys, ssd_lab.bench.trackers; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _read(file: Path) -> dict[str, Any]:
    """An offline run as the client's own record types tell it."""
    from wandb.proto import wandb_internal_pb2

    run: dict[str, Any] = {"config": {}, "summary": {}, "history": []}
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
