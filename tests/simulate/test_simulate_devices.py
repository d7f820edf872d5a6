"""A profile knows which devices target and draft had, and asynchronous rounds are priced as they share them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import HardwareProfile, MeasuredRound, Rates, TableTime, simulate
from ssd_lab.trace import load_trace

RESULTS = Path(__file__).parents[2] / "docs" / "results"
TRACE = Path(__file__).parents[2] / "docs" / "traces" / "race" / "3_async_tree.jsonl.gz"
ALWAYS = Rates(acceptance=1.0, k=4, hit_rate=1.0, rounds=10)


def machine(**fields: object) -> HardwareProfile:
    """Verification 5 s, a chain step 1 s, a tree step 2 s: 8 s a tree."""
    values = {
        "name": "m", "source": "s", "target_device": "one", "draft_device": "one", "verify_s": TableTime.of({1: 5.0}),
        "draft_step_s": 1.0, "draft_tree_step_s": 2.0, **fields,
    }  # fmt: skip
    return HardwareProfile(**values)  # type: ignore[arg-type]


def test_on_one_device_target_and_draft_take_turns():
    assert simulate(ALWAYS, machine()).time_s == pytest.approx(10 * (5 + 8))
    assert simulate(ALWAYS, machine(draft_device="another")).time_s == pytest.approx(10 * 8)


def test_times_of_runs_hold_what_each_took_from_the_other_already():
    assert simulate(ALWAYS, machine(timed="at work")).time_s == pytest.approx(10 * 8)


def test_a_draft_of_its_own_devices_is_an_assumption_that_is_said():
    apart = simulate(ALWAYS, machine(), draft_gpus=2)
    assert apart.time_s == pytest.approx(10 * 8)
    assert any("assumed, not measured: the draft has 2 devices of its own" in note for note in apart.caveats)
    with pytest.raises(ConfigError, match="at least 1"):
        simulate(ALWAYS, machine(), draft_gpus=0)


def test_drafts_that_share_a_device_take_turns_each_with_its_part_of_the_sequences():
    apart = machine(draft_device="another", draft_tree_step_s=TableTime.of({15: 2.0, 30: 3.0}), drafts_in_turn=2)
    four = Rates(acceptance=1.0, k=4, hit_rate=1.0, batch=4, rounds=10)
    assert simulate(four, apart).time_s == pytest.approx(10 * 2 * 4 * 3.0), "two trees, each of 30 branches"
    assert simulate(ALWAYS, apart).time_s == pytest.approx(10 * 4 * 2.0), "one sequence has one draft"
    one = simulate(four, machine(draft_device="another", draft_tree_step_s=TableTime.of({15: 2.0, 60: 5.0})))
    assert one.time_s == pytest.approx(10 * 4 * 5.0)
    # every row missed: a chain of four steps for two rows, and one for the two others, behind each other
    missed = simulate(Rates(acceptance=1.0, k=4, hit_rate=0.0, batch=4, rounds=10), apart)
    assert missed.time_by_cause["fallback"] == pytest.approx(10 * 2 * 4 * 1.0)


def test_a_draft_that_prepares_nothing_waits_for_the_host_in_every_round():
    apart = machine(draft_device="another", fallback_host_s=TableTime.of({1: 0.5}))
    assert simulate(ALWAYS, apart).time_s == pytest.approx(10 * 8)
    assert simulate(ALWAYS, apart.model_copy(update={"prepares": False})).time_s == pytest.approx(10 * 8.5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({}, "share one device (one)"), ({"target_device": None}, "does not say which devices")],
)
def test_every_answer_says_what_is_known_of_the_devices(fields: dict[str, None], said: str):
    assert any(said in note for note in simulate(ALWAYS, machine(**fields)).caveats)


def test_measured_rounds_stretch_priced_ones_of_their_kind_and_size():
    measured = tuple(
        MeasuredRound(drafting=drafting, sequences=count, seconds=seconds, priced_s=10.0)
        for drafting, count, seconds in [("async", 1, 20.0), ("async", 3, 40.0), ("none", 1, 15.0)]
    )
    profile = machine(measured_rounds=measured)
    assert simulate(ALWAYS, profile).time_s == pytest.approx(10 * 13 * 2)
    assert profile.round_factor("async", 2) == pytest.approx(3)
    assert profile.round_factor("async", 64) == 4
    assert profile.round_factor("chain", 1) == 1
    assert profile.autoregressive_s(1) == pytest.approx(7.5)
    straight = tuple(  # a tree of a head, priced far too steeply by the few sizes that were timed
        MeasuredRound(drafting="async", sequences=count, seconds=9.0 + count, priced_s=5.0 + 5.0 * count)
        for count in (1, 9)
    )
    assert machine(measured_rounds=straight).round_factor("async", 5) * (5.0 + 5.0 * 5) == pytest.approx(9.0 + 5)
    first = simulate(ALWAYS, profile).rounds[1]
    assert sum(first.time_by_cause.values()) == pytest.approx(first.end_s - first.start_s)
    assert max(span.end_s for span in first.activities) == pytest.approx(first.end_s)
    assert profile.with_draft_gpus(1).round_factor("async", 1) == 1, "those rounds shared a device"


# docs/results/gpu.md and h200.md: tokens a second on GSM8K, k = 7, f = 3, one GPU
@pytest.mark.parametrize(
    ("gpu", "per_round", "hits", "sync", "asynchronous"),
    [("h100", 5.33, 0.93, 375.9, 309.3)],
)
def test_the_verdict_on_one_gpu_is_the_measured_one(
    gpu: str, per_round: float, hits: float, sync: float, asynchronous: float
):
    profile = HardwareProfile.load(RESULTS / gpu / "hardware.json")
    acceptance = _acceptance(per_round, 7)
    rates = Rates(acceptance, 7, hits, branches=24, rounds=4000)
    found = {
        strategy: simulate(rates, profile, strategy=strategy).tokens_per_second / measured
        for strategy, measured in (("sync", sync), ("async", asynchronous))
    }
    assert all(0.85 < ratio < 1.15 for ratio in found.values()), found
    assert found["sync"] * sync > found["async"] * asynchronous


def _acceptance(per_round: float, k: int) -> float:
    """Of each draft token, which gives so many tokens a round."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**i for i in range(k + 1)) < per_round else (low, middle)
    return low


def test_what_was_recorded_stands_beside_what_is_predicted():
    done = CliRunner().invoke(app, ["simulate", str(TRACE), "--hardware", str(RESULTS / "h100" / "hardware.json")])
    assert done.exit_code == 0
    assert "recorded, where it ran:" in done.stdout
    assert "in asynchronous rounds they take turns" in " ".join(done.stdout.split())
    told = json.loads(CliRunner().invoke(app, ["simulate", str(TRACE), "--json"]).stdout)
    recorded = simulate(load_trace(TRACE)).recorded_tokens_per_second
    assert recorded is not None and told["recorded_tokens_per_second"] == pytest.approx(recorded)
    assert simulate(load_trace(TRACE), strategy="sync").recorded_tokens_per_second is None, "those rounds never ran"
