"""Tuning as a whole: on a tiny pair with a tiny budget, and against a published machine."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import ssd_lab
from ssd_lab.cli.main import app
from ssd_lab.config import SamplingParams
from ssd_lab.models.loader import load_model
from ssd_lab.trace import Trace
from ssd_lab.tune import Candidate, Tuning, full_grid
from ssd_lab.tune.full_grid import measured_grid
from ssd_lab.tune.recorded_runs import Paired, Subject, run_in_turn
from ssd_lab.tune.tuner import _finalists, scaled
from ssd_lab.tune.tuning import Ratio, Scored

PUBLISHED = "published-4xh100+1"
ENGINE = {"threads": 1, "draft_link": "thread", "max_model_len": 192}


@pytest.fixture(scope="module")
def tuning(tiny_pair) -> Tuning:
    return ssd_lab.tune(
        ["Hello", "What is it?"], target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32", budget_s=3,
        max_tokens=32, progress=False, **ENGINE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trace(tiny_pair) -> Trace:
    prompts = [f"Number {i}" for i in range(6)]
    return ssd_lab.run(
        prompts, target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32", strategy="async_tree", k=4, f=2,
        max_tokens=48, progress=False, max_batch=1, **ENGINE,
    ).trace  # fmt: skip


def test_the_winner_was_measured_and_is_the_fastest_of_those_that_were(tuning: Tuning):
    measured = [one for one in tuning.ranking if one.measured_tokens_per_second is not None]
    assert measured and tuning.winner is measured[0]
    assert tuning.winner.tokens_per_second == max(one.tokens_per_second for one in measured)
    assert tuning.baseline is not None and tuning.baseline in measured
    assert tuning.speedup is not None and tuning.speedup >= 1


def test_everything_that_was_scored_is_ranked_once(tuning: Tuning):
    labels = [one.candidate.label for one in tuning.ranking]
    assert len(set(labels)) == len(labels)
    assert {"sync_chain k=4", "async_tree k=4 f=3 jit", "prompt_lookup", "suffix_tree"} <= set(labels)


def test_it_says_where_the_seconds_went(tuning: Tuning):
    assert {"phases", "asynchronous run", "scoring", "confirming"} <= set(tuning.seconds)


def test_the_winner_can_be_run_as_it_stands(tuning: Tuning, tiny_pair):
    result = ssd_lab.run(
        "Hello", strategy=tuning.strategy, target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32",
        max_tokens=8, progress=False, **ENGINE, **tuning.fields,
    )  # fmt: skip
    assert len(result.outputs[0].token_ids) == 8
    assert tuning.strategy in tuning.command and "--batch 1" in tuning.command
    assert tuning.call.startswith(f"ssd_lab.run(prompts, strategy='{tuning.strategy}'")


def test_all_views_show_the_winner(tuning: Tuning):
    label = tuning.winner.candidate.label
    assert label in str(tuning) and label in tuning._repr_html_()
    assert json.loads(json.dumps(tuning.as_dict()))["strategy"] == tuning.strategy
    assert any(row["strategy"] == "autoregressive" for row in tuning.rows(1))


def test_runs_in_turn_take_the_same_prompts_and_measure_each(tiny_pair):
    models = [load_model(one, dtype="float32", progress=False) for one in (tiny_pair.target, tiny_pair.draft)]
    engine = {**ENGINE, "dtype": "float32", "device": "cpu"}
    subject = Subject(models[0], models[1], ["Hi", "You"], SamplingParams(max_tokens=12, ignore_eos=True), engine)
    few = [Candidate("autoregressive"), Candidate("sync_chain", {"k": 2})]
    paired = Paired({})
    run_in_turn(subject, few, paired, end_s=0.0, start_s=0.0, per_pass=1)
    assert {label: len(speeds) for label, speeds in paired.speeds.items()} == {
        "autoregressive": 3, "sync_chain k=2": 3,
    }, "late as it was: one pass tells nothing apart"  # fmt: skip
    assert paired.speed(Candidate("async_tree")) is None
    grid = measured_grid(subject, few[0], few, passes=2)
    assert set(grid.ratios) == {"autoregressive", "sync_chain k=2"}
    assert grid.share_of_best == pytest.approx(1 / max(grid.ratios.values()))


def scored(strategy: str, predicted: float, measured: float | None = None, **fields: Any) -> Scored:
    return Scored(Candidate(strategy, fields), predicted, 3.0, None, measured)


def test_speeds_of_the_same_passes_are_told_apart_or_not():
    fast, near, slow = (Candidate("sync_chain", {"k": k}) for k in (1, 2, 3))
    paired = Paired({fast.label: [100, 120, 80, 110], near.label: [101, 112, 84, 104], slow.label: [50, 62, 39, 55]})
    ratios = {name: paired.ratio(one, fast) for name, one in (("near", near), ("slow", slow))}
    assert ratios["near"].high is not None and ratios["near"].high > 1
    assert ratios["slow"].high is not None and ratios["slow"].high < 1
    tuning = Tuning([scored("sync_chain", 1.0, 1.0)], "here", 1, ratios=ratios)
    assert tuning.within_noise == ["near"]
    assert any(line.startswith("within noise of it") and "near (0.98, 0." in line for line in tuning.lines())
    assert tuning.as_dict()["within_noise"] == ["near"]
    once = Paired({fast.label: [100], near.label: [90]}).ratio(near, fast)
    assert (once.mean, once.high) == (pytest.approx(0.9), None)
    assert Tuning([], "here", 1, ratios={"near": once}).within_noise == ["near"], "one pass tells nothing apart"


def test_what_is_ranked_first_is_what_the_ratios_say_is_faster():
    """Of the same passes: a median could name another one."""
    first, second = (Candidate("sync_chain", {"k": k}) for k in (1, 2))
    paired = Paired({first.label: [100, 100, 10], second.label: [90, 99, 90]})
    speeds = [paired.speed(one) for one in (first, second)]
    assert speeds[0] is not None and speeds[1] is not None and speeds[0] < speeds[1]
    assert paired.ratio(first, second).mean == pytest.approx(speeds[0] / speeds[1])


def test_many_candidates_are_rows_in_a_narrow_terminal():
    ratios = {"sync_chain k=2": Ratio(0.95, 0.8, 1.1)}
    tuning = Tuning([scored("sync_chain", 90, 80.0, k=k) for k in range(1, 10)], "here", 1, ratios=ratios)
    narrow = Console(width=80, file=io.StringIO())
    narrow.print(tuning.table())
    lines = narrow.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("sync_chain k=2" in line and "0.80 to 1.10" in line for line in lines), "\n".join(lines)


def test_the_best_of_each_family_is_confirmed_if_it_comes_near():
    ranking = [
        scored("eagle3", 100, k=6), scored("eagle3", 99, k=5), scored("async_tree", 98), scored("sync_chain", 90, k=4),
        scored("cascade", 80), scored("prompt_lookup", 40), scored("autoregressive", 30),
    ]  # fmt: skip
    confirmed = [one.candidate.strategy for one in _finalists(ranking)]
    assert confirmed == ["eagle3", "autoregressive", "async_tree", "sync_chain", "cascade"]
    ahead = [
        scored("async_tree", 100, k=4),
        scored("async_tree", 99, k=3),
        scored("sync_chain", 50),
        scored("cascade", 40),
    ]
    assert [one.candidate.strategy for one in _finalists(ahead)] == ["async_tree", "sync_chain", "cascade"]
    alone = [scored("sync_chain", 100, k=k) for k in range(6)] + [scored("autoregressive", 30)]
    assert len(_finalists(alone)) == 1 + 3
    assert [one.candidate.strategy for one in _finalists([scored("autoregressive", 30)])] == ["autoregressive"]


def test_predictions_are_scaled_by_what_was_confirmed():
    measured = [scored("eagle3", 100, 50.0), scored("sync_chain", 90, 81.0), scored("autoregressive", 30, 30.0)]
    rest = scaled([scored("eagle3", 99), scored("sync_chain", 80), scored("cascade", 70)], measured)
    assert [(one.candidate.strategy, one.tokens_per_second) for one in rest] == [
        ("sync_chain", pytest.approx(72)), ("eagle3", pytest.approx(49.5)), ("cascade", pytest.approx(49.0)),
    ]  # fmt: skip
    assert scaled([scored("cascade", 70)], [])[0].tokens_per_second == 70


def test_a_published_machine_is_tuned_without_measuring(trace: Trace):
    tuning = ssd_lab.tune(hardware=PUBLISHED, trace=trace, batch=2)
    assert tuning.hardware == PUBLISHED and tuning.batch == 2
    assert all(one.measured_tokens_per_second is None for one in tuning.ranking)
    speeds = [one.predicted_tokens_per_second for one in tuning.ranking]
    assert speeds == sorted(speeds, reverse=True)
    assert any("simulated" in note for note in tuning.notes)


@pytest.mark.full
def test_the_command_line_tunes_for_a_published_machine_against_a_full_grid(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(full_grid, "FINE_ROUNDS", 400)
    path = tmp_path / "rounds.jsonl"
    trace.save(path)
    found = CliRunner().invoke(app, ["tune", "--hardware", PUBLISHED, "--trace", str(path), "--full-grid", "--json"])
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["command"].startswith("ssd-lab run")
    assert 0.8 < document["grid"]["share_of_best"] <= 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"budget_s": 0.5}, "budget_s is 0.5"),
        ({"hardware": PUBLISHED}, "go together"),
        ({"target": "somewhere"}, "needs a draft"),
        ({"k": 4}, "picks the rest"),
        ({"prompts": []}, "no prompt"),
    ],
)
def test_what_cannot_be_tuned_is_refused_with_a_reason(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ssd_lab.tune(progress=False, **arguments)


def test_the_simulator_on_the_command_line(trace: Trace, tmp_path: Path):
    path = str(tmp_path / "rounds.jsonl")
    trace.save(path)
    replayed = json.loads(CliRunner().invoke(app, ["simulate", path, "--json"]).stdout)
    assert replayed == json.loads(json.dumps(ssd_lab.simulate(trace).as_dict()))
    drawn = CliRunner().invoke(app, ["simulate", path, "-s", "sync_chain k=2", "--rounds", "50", "--json"])
    assert json.loads(drawn.stdout)["strategy"] == "sync_chain"
    rates = CliRunner().invoke(app, ["simulate", "--acceptance", "0.5", "--k", "2", "--batch", "2", "--json"])
    assert json.loads(rates.stdout)["tokens_per_round"] == pytest.approx(1.75, rel=0.05)
    for wrong in ([], [path, "--acceptance", "0.5"], [path, "--k", "3"], [path, "-s", "sync_chain l=2"]):
        assert CliRunner().invoke(app, ["simulate", *wrong]).exit_code == 2
