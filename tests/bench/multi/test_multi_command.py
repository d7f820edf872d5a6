"""`ssd-lab bench multi-gpu` as a user runs it, on processes of this CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ssd_lab.bench.multi.process import descendants, is_there
from ssd_lab.cli.main import app
from ssd_lab.simulate import AffineTime, HardwareProfile, TableTime

LIMIT_S = 110
QUICK = ("links/memory", "in the engine's thread", "two threads")


def arguments(folder: Path, only: tuple[str, ...], *more: str) -> list[str]:
    chosen = [part for name in only for part in ("--only", name)]
    return ["bench", "multi-gpu", "--devices", "cpu,cpu", "--out", str(folder), *chosen, *more]


def run(folder: Path, only: tuple[str, ...], *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments(folder, only, *more))
    return result.exit_code, result.stdout


def lines(folder: Path) -> list[dict[str, Any]]:
    file = folder / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.full
def test_a_report_goes_on_where_a_killed_call_was(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    command = [sys.executable, "-m", "ssd_lab.cli", *arguments(folder, QUICK)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as call:
        end_s = time.monotonic() + LIMIT_S
        while not lines(folder) and call.poll() is None and time.monotonic() < end_s:
            time.sleep(0.02)
        started = descendants(call.pid)
        os.kill(call.pid, signal.SIGKILL)
    before = lines(folder)
    assert before
    while any(map(is_there, started)) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not any(map(is_there, started))

    code, shown = run(folder, QUICK, "--json")
    told = json.loads(shown)
    after = lines(folder)
    assert code == 0 and after[: len(before)] == before
    assert [line["status"] for line in after] == ["done"] * 3 and len({line["key"] for line in after}) == 3
    assert told["failed"] == {} and len(told["left"]) > 3
    assert all(line["result"]["payloads"]["1 row, greedy"]["median_us"] > 0 for line in after[:2])

    report = (folder / "report.md").read_text()
    assert "| in the engine's thread, cpu to cpu |" in report and "## Commands, hardware and versions" in report
    assert "3 of " in report and "not run" in report
    code, shown = run(folder, QUICK)  # nothing is left: the report alone
    assert code == 0 and "report.md" in shown and lines(folder) == after


def test_a_plan_is_shown_and_nothing_runs(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    code, shown = run(folder, (), "--plan")
    assert code == 0 and "thought to take" in shown and "links/sums/2 ranks/gloo" in shown
    code, shown = run(folder, (), "--plan", "--json", "--usual", "--pair", "llama-8b,llama-1b")
    cells = json.loads(shown)["cells"]
    assert code == 0 and any(cell["cell"].startswith("rounds/llama-8b,llama-1b/") for cell in cells)
    elsewhere = CliRunner().invoke(app, ["bench", "multi-gpu", "--devices", "cuda:97,cuda:98", "--plan"])
    assert elsewhere.exit_code == 0 and "80 GB each were taken" in elsewhere.stdout
    assert not folder.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--devices", "cpu"], "two or more"),
        (["--devices", "cuda:97,cuda:98"], "not here"),
        (["--devices", "cpu,cpu", "--only", "nothing of that name"], "name of no cell"),
        (["--devices", "cpu,cpu", "--pair", "llama-9b,llama-1b"], "llama-9b"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(given: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "multi-gpu", "--out", str(tmp_path / "report"), *given])
    assert result.exit_code == 2 and said in " ".join(result.output.split())
    assert not (tmp_path / "report").exists()


@pytest.mark.full
def test_rounds_of_a_small_model(tmp_path: Path, tiny_pair: Any) -> None:
    folder, pair = tmp_path / "report", f"{tiny_pair.target},{tiny_pair.draft}"
    code, _ = run(folder, ("target=cpu/autoregressive", "target=cpu/sync_chain k=2"), "--pair", pair)
    found = {line["key"].rpartition("/")[2]: line for line in lines(folder)}
    assert code == 0 and [line["status"] for line in found.values()] == ["done"] * 2, found
    plain, chain = (line["result"]["batches"] for line in found.values())
    assert [one["batch"] for one in plain] == [1, 2]
    for one, other in zip(plain, chain, strict=True):
        assert one["digests"] == other["digests"]
        assert one["figures"]["tokens_per_round"]["mean"] == 1.0
        assert one["rounds"]["without lookups"]["spans_s"]["target: verify"] > 0
        assert all((folder / place).exists() for place in one["traces"])


@pytest.mark.extended
@pytest.mark.full
def test_texts_rounds_and_predictions_of_several_processes(tmp_path: Path, tiny_pair: Any) -> None:
    folder, pair = tmp_path / "report", f"{tiny_pair.target},{tiny_pair.draft}"
    only = (
        "target=cpu draft=cpu/async_tree fallback=jit/temperature 0",
        "target=cpu draft=cpu/async_tree k=3 f=2 fallback=jit",
        "shared memory",
    )
    code, shown = run(folder, only, "--pair", pair, "--json", "--minutes", "30")
    assert code == 0, shown
    assert [line["status"] for line in lines(folder)] == ["done"] * 3, lines(folder)
    assert "| async_tree fallback=jit | 0 of 96 |" in (folder / "report.md").read_text()
    assert "No prediction: no phases of one device." in (folder / "report.md").read_text()

    # phases that nobody measured: on a busy machine some of them make no sense, and there is no profile
    profile = HardwareProfile(
        name="made up", source="a test", target_device="cpu", draft_device="cpu",
        verify_s=TableTime.of({1: 1e-3, 8: 2e-3}), draft_step_s=AffineTime(base_s=1e-4),
        draft_tree_step_s=AffineTime(base_s=1e-4),
    )  # fmt: skip
    made = {"key": f"profile/{pair}", "status": "done", "seconds": 1.0, "time": ""}
    made["result"] = {"profile": profile.model_dump(mode="json")}
    with (folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(made) + "\n")
    code, shown = run(folder, only, "--pair", pair, "--json")
    simulated = next(figure for figure in json.loads(shown)["figures"] if "simulated rates" in figure["text"])
    assert code == 0 and "of 2, worst" in simulated["measured"] and simulated["verdict"] == "on CPUs"
    rows = [
        line.split("|") for line in (folder / "report.md").read_text().splitlines() if "k=3 f=2 fallback=jit | " in line
    ]
    assert len(rows) == 2 and all(float(row[-3]) > 0 and row[-2].strip().endswith("%") for row in rows)
