"""Results are printed before files are written, places are tried before the work, and Ctrl-C is an end."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import ssd_lab
from ssd_lab.cli.main import app
from ssd_lab.common.places import ensure_writable, write_whole
from ssd_lab.engine.engine import Engine
from ssd_lab.errors import ConfigError, RunInterrupted
from ssd_lab.trace import Trace

LIGHT = ["-n", "8", "--ignore-eos", "--set", "threads=1", "--set", "draft_link=thread"]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "t.jsonl")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> list[int]:
    """One Ctrl-C, after so many steps of whichever engine."""
    right, done = Engine.step, []

    def step(self: Engine) -> Any:
        done.append(1)
        if len(done) == steps:
            raise KeyboardInterrupt
        return right(self)

    monkeypatch.setattr(Engine, "step", step)
    return done


def test_a_full_disk_costs_the_file_and_not_the_text(tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Trace, "save", full_disk)
    place = str(tmp_path / "t.jsonl")
    result = invoke("run", "Hello", "-s", "autoregressive", "--trace", place, *LIGHT, *tiny_pair.options)
    assert result.exit_code == 2
    assert "> Hello" in result.stdout and "tokens/round" in result.stdout
    assert result.stderr.startswith("error: t.jsonl: No space left on device"), result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "command",
    [
        ["run", "Hello", "--trace"],
        ["compare", "Hello", "--timeline"],
        ["profile", "--out"],
        ["train", "draft", "--prompts", "p.txt", "--output"],
        ["check", "--grid", "--out"],
        ["reproduce", "--out"],
        ["models", "inflate", "--geometry", "llama-1b", "--out"],
    ],
    ids=lambda command: command[0],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ssd_lab.models.loader.load_model", full_disk)
    monkeypatch.setattr("ssd_lab.api.load_model", full_disk)
    (tmp_path / "file").write_text("no folder")
    result = invoke(*command, str(tmp_path / "file" / "out"))
    assert result.exit_code == 2
    assert f"error: {command[-1]} " in result.stderr and "name another place" in result.stderr
    assert result.stdout == ""


def test_what_cannot_be_written_whole_is_not_written(tmp_path: Path):
    place = tmp_path / "page.html"
    place.write_text("the old one")

    def half(unfinished: Path) -> None:
        unfinished.write_text("half")
        full_disk()

    with pytest.raises(OSError, match="No space left"):
        write_whole(place, half)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "the old one")]
    with pytest.raises(ConfigError, match="is a folder"):
        ensure_writable(tmp_path, "--out")
    ensure_writable(tmp_path / "new" / "folder", "--out", folder=True)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == []


def bench(tiny_pair: Any, *arguments: str) -> Any:
    """A benchmark of one request and four tokens."""
    target, draft = tiny_pair.options[1], tiny_pair.options[3]
    return invoke(
        "bench", "--target", target, "--draft-model", draft, "--random", "--numseqs", "1", "--input_len", "8",
        "--output_len", "4", "--warmup", "0", "--threads", "1", "--dtype", "float32", *arguments,
    )  # fmt: skip


def test_what_a_benchmark_measured_is_shown_where_its_table_has_no_room(
    tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ssd_lab.bench.store import RunTable

    def no_room(self: RunTable, *_: Any, **__: Any) -> int:
        raise ConfigError("database or disk is full: name another file")

    monkeypatch.setattr(RunTable, "add", no_room)
    result = bench(tiny_pair, "--strategy", "autoregressive", "--table", str(tmp_path / "t.sqlite"))
    assert result.exit_code == 2, result.output
    assert "not stored" in result.stdout and "tokens" in result.stdout


def test_a_benchmark_of_several_runs_ends_with_ctrl_c_and_shows_those_that_are_finished(
    tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from ssd_lab.cli import bench_run

    measured = iter([bench_run.run_in_turns])

    def once(*arguments: Any, **options: Any) -> Any:
        measure = next(measured, None)
        if measure is None:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(bench_run, "run_in_turns", once)
    (tmp_path / "runs.yaml").write_text("- {name: one}\n- {name: two}\n", encoding="utf-8")
    places = ["--runs", str(tmp_path / "runs.yaml"), "--table", str(tmp_path / "t.sqlite")]
    result = bench(tiny_pair, *places, "--json")
    assert result.exit_code == 130, result.output
    assert [run["name"] for run in json.loads(result.stdout)] == ["one"]
    assert "1 of 2 runs are measured, and in" in result.stderr


def test_a_comparison_ends_with_ctrl_c_keeps_what_is_finished_and_compares_nothing_with_a_cut_run(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch
):
    done = interrupt_after(monkeypatch, 14)  # the first run takes 9 steps
    names = [word for name in ("autoregressive", "prompt_lookup", "suffix_tree") for word in ("-s", name)]
    result = invoke("compare", "Hello", *names, "--json", "--repeats", "1", *LIGHT, *tiny_pair.options)
    assert result.exit_code == 130
    assert "interrupted: 1 of 3 strategies are finished; the same command begins anew" in result.stderr
    document = json.loads(result.stdout)
    whole, cut = document["rows"]
    assert document["interrupted"] and (whole["interrupted"], cut["interrupted"]) == (False, True)
    assert whole["num_output_tokens"] == 8 > cut["num_output_tokens"]
    assert cut["same_text"] is cut["speedup"] is None
    assert len(done) < 18, "no third strategy was run"


def test_ctrl_c_in_a_later_turn_keeps_the_text_and_the_turns_before(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    interrupt_after(monkeypatch, 14)  # each turn takes 9 steps at most
    with pytest.raises(RunInterrupted, match="the text is whole, 1 of 5 turns"):
        ssd_lab.run(
            "Hello",
            strategy="autoregressive",
            target=tiny_pair.target,
            max_tokens=8,
            threads=1,
            repeats=5,
            progress=False,
        )


def test_one_ctrl_c_ends_a_loop_of_runs(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    interrupt_after(monkeypatch, 4)
    rounds = []

    def loop() -> None:
        for number in range(3):
            rounds.append(number)
            ssd_lab.run(
                "Hello", strategy="autoregressive", target=tiny_pair.target, max_tokens=8, threads=1, progress=False
            )

    with pytest.raises(RunInterrupted) as stopped:
        loop()
    assert rounds == [0]
    run = stopped.value.result
    assert run.interrupted and 0 < len(run.outputs[0].token_ids) < 8
    assert "INTERRUPTED: 0 of 1 outputs are finished" in repr(run)


@pytest.mark.full
def test_tuning_ends_with_ctrl_c_whatever_it_is_doing(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    done = interrupt_after(monkeypatch, 30)
    result = invoke("tune", "Hello", "--budget-s", "4", "--set", "threads=1", *tiny_pair.options)
    assert result.exit_code == 130
    assert "nothing is ranked yet" in result.stderr
    assert result.stdout == ""
    assert len(done) < 40, "nothing was run after it"


@pytest.mark.full
def test_an_interrupted_confirmation_leaves_the_ranking(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch):
    from ssd_lab.tune import tuner

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuner, "run_in_turn", interrupted)
    result = invoke("tune", "Hello", "--budget-s", "4", "--set", "threads=1", "--json", *tiny_pair.options)
    assert result.exit_code == 130
    document = json.loads(result.stdout)
    assert len(document["ranking"]) > 3
    assert document["notes"][0].startswith("INTERRUPTED while the best were confirmed: 0 of ")


@pytest.mark.full  # a full disk in this process is above
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="SKIPPED ALOUD: this system has no /dev/full")
@pytest.mark.parametrize(
    ("arguments", "said"), [(["models"], "No space left on device"), (["compare", "--draft", "a b/c", "Hi"], "a b/c")]
)
def test_a_full_disk_behind_stdout_is_one_line(arguments: list[str], said: str) -> None:
    """The results as JSON, and an error as JSON that cannot be written either."""
    command = [sys.executable, "-m", "ssd_lab.cli", *arguments, "--json"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
