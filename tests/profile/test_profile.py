"""Profiles: sizes, points and their tables, what the simulator takes of them, and the check against real rounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trace_samples import round_record, sequence_round
from typer.testing import CliRunner

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError, RunInterrupted
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.profile import measure, points, report
from ssd_lab.profile.check import CheckedRounds, check_trace
from ssd_lab.profile.host_time import idle_s
from ssd_lab.profile.measure import DRAFTING, Sizes, fits, hardware_profile, measure_phases
from ssd_lab.profile.phase_times import PhaseTimer, Work
from ssd_lab.profile.points import Measurement, Point, RoundPoint
from ssd_lab.profile.rounds import (
    PASSES,
    Runs,
    full_rounds,
    measure_rounds,
    points_of_runs,
    priced_rounds_s,
    without_stalls,
)
from ssd_lab.simulate import HardwareProfile, simulate
from ssd_lab.trace import Activity, Trace

CPU = torch.device("cpu")
SMALL = Sizes(k=2, fan_out=(2, 1, 1), batches=(1, 2), contexts=(32,), rows=(1, 3), repeats=1)


@pytest.fixture(scope="module")
def pair(tiny_pair) -> tuple[LoadedModel, LoadedModel]:
    target, draft = (load_model(one, dtype="float32", progress=False) for one in (tiny_pair.target, tiny_pair.draft))
    return target, draft


@pytest.fixture(scope="module")
def measured(pair) -> Measurement:
    return measure_phases(*pair, SMALL)


def made(seconds: dict[tuple[str, str, int, int], float], **others: Any) -> Measurement:
    """A measurement by hand: (what, model, batch, rows) -> seconds; every forward moves 8 bytes, 4 bytes/s."""
    found = [Point(what, model, batch, 32, rows, s, 8) for (what, model, batch, rows), s in seconds.items()]
    return Measurement(4.0, {"target": "t", "draft": "d"}, 2, (2, 1, 1), found, **others)


BY_HAND = {
    (points.AUTOREGRESSIVE, "target", 1, 1): 4.0,
    (points.VERIFY, "target", 1, 3): 5.0,
    (points.CHAIN_STEP, "draft", 1, 1): 1.0,
    (points.EXTENSION, "draft", 1, 3): 1.5,
    (points.TREE_STEP, "draft", 1, 4): 2.0,
}


def test_the_fan_out_must_fit_k():
    with pytest.raises(ConfigError, match="needs 3"):
        Sizes(k=2, fan_out=(1, 1))


def test_every_phase_is_measured_at_every_size(measured: Measurement):
    kinds = {(point.what, point.model, point.batch, point.rows) for point in measured.points}
    for batch in (1, 2):
        assert {
            (points.AUTOREGRESSIVE, "target", batch, batch),
            (points.VERIFY, "target", batch, 3 * batch),
            (points.ATTENTION, "target", batch, batch),
            (points.CHAIN_STEP, "draft", batch, batch),
            (points.EXTENSION, "draft", batch, 3 * batch),
            (points.TREE_STEP, "draft", batch, 4 * batch),
        } <= kinds
    assert all(point.seconds > 0 for point in measured.points if point.what != points.TREE_STEP)
    assert measured.bandwidth > 0


def test_a_forward_moves_its_weights_and_its_keys_and_values(pair, measured: Measurement):
    work = Work(batch=2, context=32)
    with PhaseTimer(pair[0], work) as timer:
        config = pair[0].config
        keys_and_values = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4 * 32 * 2
        assert timer.kv_bytes(work) == keys_and_values
        found = measured.find(points.VERIFY, "target", batch=2, context=32)
        assert found is not None and found.bytes == timer.weight_bytes + keys_and_values


def test_what_does_not_fit_is_left_out(pair):
    assert fits(pair[0], Work(1, 512))
    assert not fits(pair[0], Work(64, 1024))
    assert not measure_phases(pair[0], None, Sizes(1, (1, 1), (64,), (1024,), (1,), 1)).points


def test_find_tells_points_apart_by_rows():
    found = made({(points.VERIFY, "target", 1, 3): 5.0, (points.VERIFY, "target", 1, 8): 6.0})
    eight = found.find(points.VERIFY, "target", batch=1, context=32, rows=8)
    assert eight is not None and eight.seconds == 6.0
    assert found.find(points.VERIFY, "target", batch=2, context=32) is None


def test_a_share_of_bandwidth_is_bytes_over_time_over_it():
    assert Point("verify", "target", 1, 32, 1, 4.0, 8).share_of(4.0) == 0.5


def test_the_simulator_gets_every_time_by_its_rows():
    rounds = [RoundPoint("sync_chain", 1, 32, 9.0, 8.0, 1.0, 2.0), RoundPoint("async_tree", 1, 32, 6.0, 5.5, 1.0, 2.0)]
    profile = hardware_profile(made(BY_HAND, rounds=rounds), "mine")
    assert (profile.verify_s.at(1), profile.verify_s.at(2), profile.verify_s.at(3)) == (4.0, 4.5, 5.0)
    assert profile.autoregressive_s(1) == 4.0 + 0.5  # the least that a whole round took beyond its phases
    assert (profile.draft_step_s.at(1), profile.draft_tree_step_s.at(4)) == (1.0, 2.0)
    assert profile.tree_s(steps=2, branches=4, rows=3) == 1.5 + 2 * 2.0
    assert profile.name == "mine"


def test_a_profile_without_a_draft_is_refused():
    with pytest.raises(ConfigError, match="give --draft"):
        hardware_profile(made({(points.AUTOREGRESSIVE, "target", 1, 1): 4.0}), "mine")


def test_a_measured_profile_survives_its_file(measured: Measurement, tmp_path: Path):
    profile = hardware_profile(measured, "tiny")
    profile.save(tmp_path / "tiny.json")
    assert HardwareProfile.load(tmp_path / "tiny.json") == profile
    assert json.loads(json.dumps(measured.as_dict()))["k"] == 2


def test_the_report_has_floors_shares_and_ratios():
    rounds = [RoundPoint("sync_chain", 1, 32, 9.0, 8.0, 1.5, 2.5)]
    found = made(BY_HAND, rounds=rounds)
    cells = report.roofline_rows(found)[0]
    assert cells == ["autoregressive step", "target", "1", "32", "1", "4000.000", "0.000", "2000.000", "50.0%"]
    assert report.round_rows(found)[0][-4:] == ["+1000.000 ms", "-", "1.5", "2.50"]
    ratios = dict(report.ratio_rows(found))
    assert ratios["verify, 3 rows, over the step"] == "1.250"
    assert ratios["tree step, 4 branches, over the chain step"] == "2.000"
    text = report.markdown(found, command="ssd-lab profile")
    assert "## Phases alone" in text and "## Rounds of whole runs" in text


def test_the_device_is_idle_where_no_graph_runs():
    """A round of 9 s: a tree and a verification that overlap, and a chain; the first round is left out."""
    spans = [("verify", (0.0, 1.0)), ("verify", (3.0, 4.0))]
    for start in (5.0, 14.0):
        overlapping = [("draft_tree", (start, start + 4)), ("verify", (start + 2, start + 5))]
        spans += [*overlapping, ("draft_chain", (start + 6, start + 8))]
    assert idle_s(spans, skipped=2) == 9 - (2 + 5)
    with pytest.raises(ValueError, match="at least 2"):
        idle_s(spans, skipped=3)


def sync_rounds(verify: list[float]) -> Trace:
    """Rounds of 1 s drafting, verification, and 0.5 s of overhead."""
    made_rounds, start = [], 0.0
    for index, seconds in enumerate(verify):
        spans = (
            Activity("link", "wait for draft", start, start + 1),
            Activity("draft", "draft", start, start + 1),
            Activity("target", "verify", start + 1, start + 1 + seconds),
        )
        end = start + 1 + seconds + 0.5
        made_rounds.append(round_record(index, start, end, sequence_round(1), activities=spans))
        start = end
    return Trace({}, rounds=made_rounds)


def test_the_check_is_exact_where_rounds_are_alike_and_fails_where_they_are_not():
    steady = check_trace(sync_rounds([3.0] * 15), "sync_chain")
    assert (steady.recorded_s, steady.predicted_s) == (pytest.approx(4.5), pytest.approx(4.5))
    assert steady.holds
    # every other round is twice as long, so what is learned from the one half is wrong for the other
    uneven = check_trace(sync_rounds([3.0] * 3 + [3.0, 6.0] * 6), "sync_chain")
    assert uneven.error == pytest.approx(4.5 / 7.5 - 1) and not uneven.holds


def test_a_check_needs_rounds():
    with pytest.raises(ConfigError, match="at least 8"):
        check_trace(sync_rounds([3.0] * 6), "sync_chain")


def test_the_check_is_shown_with_its_error():
    text = report.check_markdown([CheckedRounds("sync_chain", 12, 0.010, 0.0125, 2, ((100, 90), (100, 110)))])
    assert "| sync_chain | 2 | 12 | 10.000 | 12.500 | +25.0% | no | 100.0 | 100.0 | 1.00 (0.90 to 1.10) |" in text


def test_the_check_judges_the_order_of_what_the_runs_tell_apart():
    def ran(strategy: str, *rates: tuple[float, float], batch: int = 1) -> CheckedRounds:
        return CheckedRounds(strategy, 12, 0.01, 0.01, batch, rates)

    plain, noisy = ran("plain", (100, 100), (102, 100)), ran("noisy", (90, 300), (200, 300))
    chain, tree = ran("chain", (200, 210), (202, 210)), ran("tree", (150, 90), (151, 90))
    assert "of 2 pairs that the runs tell apart, 2 are" in report.check_markdown([plain, chain, noisy, ran(
        "head", (300, 300), (301, 300), batch=8), ran("other", (100, 99), (101, 99), batch=8)])  # fmt: skip
    wrong = report.check_markdown([plain, chain, tree])
    assert (
        "of 3 pairs that the runs tell apart, 2 are predicted in their order; not tree over plain at batch 1" in wrong
    )
    assert "tell no two strategies apart" in report.check_markdown([plain, noisy])


@pytest.mark.full
def test_profile_on_the_command_line_measures_checks_and_writes(
    tiny_pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ssd_lab.profile.rounds.MOST_TOKENS", 48)
    names = [word for name in ("autoregressive", "sync_chain", "async_tree") for word in ("-s", name)]
    options = ["--k", "2", "--f", "1", "--batch", "1", "--context", "32", "--check", "--json", *names]
    result = CliRunner().invoke(app, ["profile", *tiny_pair.options, *options, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    checked = json.loads(result.stdout)["check"]
    assert [one["strategy"] for one in checked] == ["autoregressive", "sync_chain", "async_tree"]
    assert all(len(one["ratios"]) == PASSES and min(one["ratios"]) > 0 for one in checked)
    profile = HardwareProfile.load(tmp_path / "hardware.json")
    assert profile.shares_device, "both ran on this CPU"
    assert [one.drafting for one in profile.measured_rounds] == ["none", "chain", "async"]
    assert "The simulator against these rounds" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_ctrl_c_shows_what_is_finished_and_writes_nothing(tiny_pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: Any, **__: Any) -> Measurement:
        raise RunInterrupted(made(BY_HAND), "interrupted: 5 phases are timed")

    monkeypatch.setattr(measure, "measure_phases", interrupted)
    options = ["--k", "2", "--f", "1", "--batch", "1", "--context", "32", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["profile", *tiny_pair.options, *options])
    assert result.exit_code == 130 and "the same command begins anew" in result.stderr
    assert (
        "INTERRUPTED, incomplete: interrupted: 5 phases" in result.stdout and "| verify | target | 1 |" in result.stdout
    )
    assert not list(tmp_path.iterdir())


def test_ctrl_c_between_phases_keeps_those_that_are_timed(pair, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: Any, **__: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "read_bandwidth", lambda _: 1e9)
    monkeypatch.setattr(PhaseTimer, "tree_s", interrupt)
    with pytest.raises(RunInterrupted, match="phases are timed") as stopped:
        measure_phases(*pair, SMALL)
    assert {point.what for point in stopped.value.result.points} >= {points.VERIFY, points.CHAIN_STEP}


def test_ctrl_c_in_whole_runs_keeps_the_kinds_that_are_finished(pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ssd_lab.profile.rounds.MOST_TOKENS", 8)
    monkeypatch.setattr("ssd_lab.profile.rounds.FEWEST_ROUNDS", 1)
    right, begun = LLM.run, []

    def run(self: LLM, *arguments: Any, **options: Any) -> Any:
        begun.append(self.strategy.strategy_name)
        if begun[-1] == "prompt_lookup":  # the engine turns Ctrl-C into a run that was cut
            return replace(right(self, *arguments, **options), interrupted=True)
        return right(self, *arguments, **options)

    monkeypatch.setattr(LLM, "run", run)
    few = replace(SMALL, batches=(1,))
    with pytest.raises(RunInterrupted, match="whole runs of 1 kinds are measured") as stopped:
        measure_rounds(*pair, few, only=("autoregressive", "prompt_lookup", "suffix_tree"), passes=1)
    assert [point.strategy for point in stopped.value.result] == ["autoregressive"]
    assert begun == ["autoregressive"] * 2 + ["prompt_lookup"]


def test_a_point_that_noise_left_no_sense_in_is_tried_again_then_left_out(
    pair, tiny_pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tries = []
    monkeypatch.setattr(measure, "read_bandwidth", lambda _: 1e9)
    monkeypatch.setattr(PhaseTimer, "tree_s", lambda *_, **__: tries.append(1) or 0.0)
    found = measure_phases(*pair, Sizes(k=2, fan_out=(1, 1, 1), batches=(1,), contexts=(32,), rows=(1,), repeats=1))
    assert len(tries) == 3
    assert "batch 1" in found.unusable[0] and not [one for one in found.points if one.what == points.TREE_STEP]
    with pytest.raises(ConfigError, match="measure again"):
        hardware_profile(found, "busy")
    monkeypatch.setattr(measure, "measure_phases", lambda *_, **__: found)
    options = ["--k", "2", "--f", "1", "--batch", "1", "--context", "32", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, ["profile", *tiny_pair.options, *options])
    assert result.exit_code == 2
    assert "draft chain step" in result.stdout, "what was measured is shown"
    assert (tmp_path / "measurement.json").exists() and not (tmp_path / "hardware.json").exists()


@pytest.mark.full
def test_a_profile_predicts_the_rounds_that_it_was_made_of():
    """Of every kind of round, alone and together: whatever the machine did meanwhile, their own mean comes out, over
    the same prices.

    How near a profile comes to runs that it does not know is measured in docs/results/predictions.md, not tested: it
    rests on a quiet machine.
    """
    target, draft = (load_model(str(one), progress=False) for one in (demo.TARGET, demo.DRAFT))
    sizes = Sizes(k=2, fan_out=(2, 1, 1), batches=(1, 3), contexts=(64,), rows=(1, 3), repeats=1)
    phases = measure_phases(target, draft, sizes)
    params = SamplingParams(max_tokens=18, ignore_eos=True)
    fields: dict[str, dict[str, Any]] = {
        "autoregressive": {}, "sync_chain": {"k": 2}, "async_tree": {"k": 2, "f": 1}, "eagle3": {"k": 2},
        "eagle3 mode=async": {"k": 2, "mode": "async"},
    }  # fmt: skip
    assert fields.keys() == DRAFTING.keys()
    runs = []
    for name, own_fields in fields.items():
        with LLM(target, draft, name.split()[0], progress=False, max_batch=3, **own_fields) as llm:
            for batch in sizes.batches:
                prompts = demo.canned_prompts()[:batch]
                runs.append(Runs(name, batch, [llm.run(prompts, params).whole() for _ in range(2)]))
    own = points_of_runs(runs, hardware_profile(phases, "here"))
    profile = hardware_profile(replace(phases, rounds=own), "here")
    for one, point in zip(runs, own, strict=True):
        measured = [full_rounds(result.trace, one.batch) for result in one.results]
        predicted_s = sum(
            simulate(Trace(result.trace.meta, rounds=rounds), profile, miss_cost="full").time_s
            for result, rounds in zip(one.results, measured, strict=True)
        )
        priced_s = sum(
            sum(priced_rounds_s(rounds, result.trace, unstretched(profile)))
            for result, rounds in zip(one.results, measured, strict=True)
        )
        assert point.mean_s is not None and point.priced_s is not None
        assert predicted_s == pytest.approx(priced_s * point.mean_s / point.priced_s), (one.name, one.batch)
        seconds = [each.end_s - each.start_s for rounds in measured for each in rounds]
        assert min(seconds) <= point.mean_s <= max(seconds)


def unstretched(profile: HardwareProfile) -> HardwareProfile:
    """The same phases, without what whole rounds say of them."""
    return profile.model_copy(update={"measured_rounds": ()})


def test_a_round_in_which_the_machine_did_something_else_does_not_count():
    steady = [(2.0, 1.0), (4.0, 2.0), (2.2, 1.0), (1.8, 1.0)]
    assert without_stalls(steady) == (pytest.approx(2.5), pytest.approx(1.25))
    assert without_stalls([*steady, (70.0, 1.0)]) == without_stalls(steady)
    assert without_stalls([(6.0, 3.0), (2.0, 1.0)]) == (4.0, 2.0), "a longer round of another kind is no stall"
