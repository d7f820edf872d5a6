"""Tuning as a whole: on a tiny pair with a tiny budget, and against a published machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ssd_lab
from ssd_lab.cli.main import app
from ssd_lab.config import SamplingParams
from ssd_lab.models.loader import load_model
from ssd_lab.trace import Trace
from ssd_lab.tune import Candidate, Tuning
from ssd_lab.tune.full_grid import measured_grid
from ssd_lab.tune.recorded_runs import Subject, run_in_turn

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
    paired = run_in_turn(subject, few, end_s=0.0, start_s=0.0, per_pass=1)
    assert {label: len(speeds) for label, speeds in paired.speeds.items()} == {
        "autoregressive": 1, "sync_chain k=2": 1,
    }  # fmt: skip
    assert paired.speed(Candidate("async_tree")) is None
    grid = measured_grid(subject, few[0], few, passes=2)
    assert set(grid.ratios) == {"autoregressive", "sync_chain k=2"}
    assert grid.share_of_best == pytest.approx(1 / max(grid.ratios.values()))


def test_a_published_machine_is_tuned_without_measuring(trace: Trace):
    tuning = ssd_lab.tune(hardware=PUBLISHED, trace=trace, batch=2)
    assert tuning.hardware == PUBLISHED and tuning.batch == 2
    assert all(one.measured_tokens_per_second is None for one in tuning.ranking)
    speeds = [one.predicted_tokens_per_second for one in tuning.ranking]
    assert speeds == sorted(speeds, reverse=True)
    assert any("simulated" in note for note in tuning.notes)


@pytest.mark.full
def test_the_command_line_tunes_for_a_published_machine_against_a_full_grid(trace: Trace, tmp_path: Path):
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
