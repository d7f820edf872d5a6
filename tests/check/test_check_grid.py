"""The whole grid in small: it resumes, reports and finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ssd_lab.check import grid
from ssd_lab.check.cells import Cell, CellResult, Setting
from ssd_lab.check.grid import Configuration, GridExtent, GridReport, run_grid
from ssd_lab.check.store import NAME
from ssd_lab.cli.main import app
from ssd_lab.config import SamplingParams
from ssd_lab.decoding import acceptance
from ssd_lab.errors import ConfigError
from ssd_lab.kernels.torch_kernels import TorchKernels

SMALL = GridExtent(temperatures=(1.0,), batches=(8,), draws=300, random_prompts=8, bundled_prompts=1, max_tokens=6)
STRATEGIES = ("autoregressive", "prompt_lookup")


def run(folder: Path, **changes: Any) -> GridReport:
    return run_grid(folder, **{"strategies": STRATEGIES, "extent": SMALL, "progress": False, **changes})


def test_the_report_says_what_was_run_where_and_what_came_of_it(tmp_path: Path):
    report = run(tmp_path, command="ssd-lab check --grid")
    assert report.same
    assert report.verdict().startswith("NO DIFFERENCE FOUND: 0 differing tokens of 108 at temperature 0; 0 of ")
    text = (tmp_path / "grid.md").read_text(encoding="utf-8")
    for part in (report.verdict(), "ssd-lab check --grid", "torch ", "| prompt_lookup | custom | acceptance |"):
        assert part in text
    data = json.loads((tmp_path / "grid.json").read_text(encoding="utf-8"))
    assert data["same"] is True
    assert data["environment"]["versions"]["torch"]
    assert {cell["strategy"] for cell in data["cells"]} == set(STRATEGIES)
    assert all(cell["tokens"] > 0 for cell in data["cells"])


@pytest.mark.full
def test_an_interruption_loses_the_cell_that_was_running_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right, ran = grid.run_cell, []

    def counted(setting: Setting, cell: Cell, on_wave: Any) -> CellResult:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(cell.key)
        return right(setting, cell, on_wave)

    monkeypatch.setattr(grid, "run_cell", counted)
    first = run(tmp_path)
    assert first.interrupted
    assert "so far (3 of 6 cells)" in first.verdict()
    with (tmp_path / NAME).open("a", encoding="utf-8") as file:
        file.write('{"key": "half a li')  # killed while it wrote
    monkeypatch.setattr(grid, "run_cell", right)
    second = run(tmp_path)
    assert not second.interrupted
    assert len(second.cells) == second.num_cells == 6
    lines = (tmp_path / NAME).read_text(encoding="utf-8").splitlines()[1:]
    assert [json.loads(line)["key"] for line in lines] == [cell.key for cell, _ in second.cells]
    assert ran == [cell.key for cell, _ in second.cells][:3]


def test_cells_of_other_settings_are_not_mixed_in(tmp_path: Path):
    only = {"strategies": ("autoregressive",), "extent": GridExtent(temperatures=(), batches=(8,), bundled_prompts=0)}
    run(tmp_path, **only)
    with pytest.raises(ConfigError, match="written with other settings: begin anew with --fresh"):
        run(tmp_path, **only, seed=1)
    assert run(tmp_path, **only, seed=1, fresh=True).same
    (tmp_path / NAME).write_text("no json\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no cells of this check"):
        run(tmp_path, **only)


def test_what_would_spoil_every_cell_is_refused_before_the_first(tmp_path: Path):
    with pytest.raises(ConfigError, match="unknown field 'k'"):
        run(tmp_path, k=4)
    with pytest.raises(ConfigError, match="temperatures over 0"):
        run(tmp_path, extent=GridExtent(temperatures=(0.0,)))
    with pytest.raises(ConfigError, match="unknown strategy 'async_tree f=1'"):
        run(tmp_path, strategies=["async_tree f=1"])


@pytest.mark.full
def test_one_draft_token_too_many_at_temperature_zero_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right = TorchKernels.accept_greedy

    def keep_one_more(self: Any, target: Any, drafted: Any, limit: Any) -> acceptance.Outcome:
        outcome = right(self, target, drafted, limit)
        return acceptance.Outcome((outcome.num_accepted + 1).minimum(limit), outcome.recovery_token)

    monkeypatch.setattr(TorchKernels, "accept_greedy", keep_one_more)
    extent = GridExtent(temperatures=(), batches=(8,), random_prompts=8, bundled_prompts=0)
    report = run(tmp_path, strategies=("sync_chain",), extent=extent)
    assert not report.same
    assert len(report.different) == len(report.cells)
    assert "- differing tokens: " in (tmp_path / "grid.md").read_text(encoding="utf-8")


def test_a_rejected_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right = acceptance.accept_sampled

    def greedy(self: Any, probs: Any, tokens: Any, draft_probs: Any, drafted: Any, *coins: Any) -> Any:
        outcome = right(probs, tokens, draft_probs, drafted, *coins)
        at = outcome.num_accepted[:, None, None].expand(-1, 1, probs.shape[-1])
        return acceptance.Outcome(outcome.num_accepted, probs.gather(1, at).squeeze(1).argmax(-1))

    monkeypatch.setattr(TorchKernels, "accept_sampled", greedy)
    extent = GridExtent(temperatures=(1.0,), batches=(8,), random_prompts=0, bundled_prompts=0)
    report = run(tmp_path, strategies=("prompt_lookup",), extent=extent)
    assert {(one.tests.path, one.tests.event) for one in report.rejected} >= {("custom", "recovery")}
    assert "NOT THE SAME" in report.verdict()
    assert "- rejected: custom, recovery" in (tmp_path / "grid.md").read_text(encoding="utf-8")


@pytest.mark.full
def test_an_error_in_a_cell_ends_that_cell_and_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("out of paper")

    monkeypatch.setattr("ssd_lab.strategies.prompt_lookup.PromptLookup.draft", broken)
    report = run(tmp_path)
    assert not report.same
    assert {result.key.split(" | ")[1] for result in report.failed} == {"prompt_lookup k=3"}
    assert all("out of paper" in str(result.failed) for result in report.failed)
    assert len(report.cells) == 6


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration("async_tree", {"k": 3, "fallback": "fast"}),
        Configuration("sync_tree", {}),
        Configuration("cascade", {"second": {"strategy": "eagle3", "k": 3}}),
    ],
    ids=lambda configuration: configuration.strategy,
)
def test_recording_whole_distributions_changes_no_text(grid_setting: Setting, configuration: Configuration):
    params = SamplingParams(temperature=1.0, max_tokens=16, ignore_eos=True, seed=5)
    models, texts = grid_setting.models, []
    assert grid_setting.details == models.target.config.vocab_size
    for details in (grid_setting.details, 0):
        with models.llm(configuration.subject.config, max_batch=2, record_details=details) as llm:
            texts.append([output.token_ids for output in llm.generate([[1, 2, 3], [4, 5]], params)])
    assert texts[0] == texts[1]


def test_the_command_runs_and_refuses_what_does_not_fit(tmp_path: Path):
    runner = CliRunner()
    arguments = ["check", "--grid", "-s", "prompt_lookup k=2", "--batch", "8", "-t", "1", "--draws", "500"]
    done = runner.invoke(app, [*arguments, "--num-prompts", "1", "-n", "4", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["same"] is True
    assert {cell["fields"]["k"] for cell in data["cells"]} == {2}, "given fields stay"
    assert (tmp_path / "grid.md").exists()
    assert runner.invoke(app, ["check", "--grid", "--k", "4"]).exit_code != 0
    assert runner.invoke(app, ["check", "--fresh"]).exit_code != 0
