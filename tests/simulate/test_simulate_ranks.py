"""A target over several devices is priced by one rank's measured part and the sums, or says what was assumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssd_lab.errors import ConfigError
from ssd_lab.simulate import AffineTime, HardwareProfile, MeasuredRound, RankSlice, Rates, TableTime, simulate

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PART = RankSlice(ranks=2, sums=4, verify_s=TableTime.of({1: 3.0, 9: 5.0}), autoregressive_step_s=TableTime.of({1: 3.5}))


def machine(**fields: object) -> HardwareProfile:
    """On one device a forward takes 5 s, and 1 s more for each further 8 rows; an autoregressive step 4 s."""
    values = {
        "name": "m", "source": "s", "target_device": "one", "draft_device": "one",
        "verify_s": TableTime.of({1: 5.0, 9: 6.0}), "draft_step_s": 1.0, "draft_tree_step_s": 2.0,
        "autoregressive_step_s": 4.0, **fields,
    }  # fmt: skip
    return HardwareProfile(**values)  # type: ignore[arg-type]


def test_one_ranks_part_and_its_sums_are_the_forward():
    two = machine(rank_slices=(PART,)).with_target_ranks(2, sum_s=AffineTime(base_s=0.1, per_row_s=0.01))
    assert two.verify_s.at(1) == pytest.approx(3.0 + 4 * 0.11)
    assert two.verify_s.at(9) == pytest.approx(5.0 + 4 * 0.19)
    assert two.autoregressive_s(1) == pytest.approx(3.5 + 4 * 0.11)
    assert two.caveats == ()
    # a round of sync_chain, k = 2: two steps of the draft, and three rows of the target
    rounds = simulate(Rates(acceptance=1.0, k=2, rounds=10), two)
    assert rounds.time_s == pytest.approx(10 * (2 * 1.0 + 3.5 + 4 * 0.13))


def test_sums_that_were_measured_at_other_rows_than_the_part_keep_their_own():
    two = machine(rank_slices=(PART,)).with_target_ranks(2, sum_s=TableTime.of({1: 0.1, 5: 0.1, 9: 1.1}))
    assert two.verify_s.at(5) == pytest.approx(4.0 + 4 * 0.1)
    assert two.verify_s.at(9) == pytest.approx(5.0 + 4 * 1.1)


def test_without_a_measured_part_it_is_an_equal_one_and_that_is_said():
    sum_s = AffineTime(base_s=0.1)
    two = machine().with_target_ranks(2, sums=6, sum_s=sum_s)
    assert (two.verify_s.at(9), two.autoregressive_s(1)) == (pytest.approx(3.6), pytest.approx(2.6))
    assert any("assumed, not measured: one of 2 ranks takes 1/2" in note for note in two.notes)
    four = machine(rank_slices=(PART,)).with_target_ranks(4, sums=6, sum_s=sum_s)
    assert four.verify_s.at(1) == pytest.approx(1.25 + 0.6), "a part of two ranks is none of four"
    with pytest.raises(ConfigError, match="ssd-lab profile --ranks 2"):
        machine().with_target_ranks(2)


def test_without_measured_sums_those_of_two_gpus_are_taken_and_that_is_said():
    two = machine(rank_slices=(PART,)).with_target_ranks(2)
    assert 3.5 < two.autoregressive_s(1) < 3.5 + 4 * 1e-5
    assert [note for note in two.caveats if "sums over the ranks as between two H200" in note]


def test_what_the_host_adds_to_a_round_of_one_device_stays():
    measured = tuple(
        MeasuredRound(drafting=drafting, sequences=count, seconds=seconds, priced_s=4.0)
        for drafting, count, seconds in [("none", 1, 4.75), ("none", 4, 4.25), ("chain", 1, 4.125)]
    )
    two = machine(rank_slices=(PART,), measured_rounds=measured).with_target_ranks(2, sum_s=AffineTime(base_s=0.0))
    assert two.autoregressive_s(1) == pytest.approx(3.5 + 0.25), "the least of the autoregressive ones"
    assert machine().with_target_ranks(1) == machine()


def test_profiles_of_before_there_were_parts_are_read():
    path = RESULTS / "h200" / "hardware.json"
    assert not {"rank_slices", "fallback_host_s"} & json.loads(path.read_text(encoding="utf-8")).keys()
    old = HardwareProfile.load(path)
    assert (old.rank_slices, old.fallback_host_s) == ((), None)


def test_a_profile_with_a_part_survives_its_file(tmp_path: Path):
    profile = machine(rank_slices=(PART,), fallback_host_s=TableTime.of({1: 0.5, 4: 1.5}))
    profile.save(tmp_path / "m.json")
    assert HardwareProfile.load(tmp_path / "m.json") == profile
