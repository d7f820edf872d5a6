"""One rank's part of a target is timed without the others, at the sizes of the whole target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ssd_lab.errors import ConfigError
from ssd_lab.models.loader import load_model
from ssd_lab.profile import points
from ssd_lab.profile.measure import Sizes, hardware_profile, rank_slice
from ssd_lab.profile.points import Measurement, Point, SlicePoints
from ssd_lab.profile.slices import measure_slice

SMALL = Sizes(k=2, fan_out=(2, 1, 1), batches=(1, 2), contexts=(32,), rows=(1, 3, 4), repeats=1)
ROLE = points.rank_of(2)
WHOLE = Measurement(
    4.0, {"target": "t", "draft": "d"}, 2, (2, 1, 1),
    [
        Point(points.AUTOREGRESSIVE, "target", 1, 32, 1, 4.0, 8), Point(points.VERIFY, "target", 1, 32, 3, 5.0, 8),
        Point(points.CHAIN_STEP, "draft", 1, 32, 1, 1.0, 8), Point(points.EXTENSION, "draft", 1, 32, 3, 1.5, 8),
        Point(points.TREE_STEP, "draft", 1, 32, 4, 2.0, 8),
    ],
)  # fmt: skip


def part(*seconds: tuple[str, int, int, float], ranks: int = 2) -> SlicePoints:
    """By hand: what, context, rows, seconds."""
    role = points.rank_of(ranks)
    return SlicePoints(ranks, 4, [Point(what, role, 1, context, rows, s, 4) for what, context, rows, s in seconds])


def test_the_part_of_one_of_two_ranks_is_timed_where_the_whole_target_is(tiny_pair: Any) -> None:
    whole = load_model(tiny_pair.target, dtype="float32")
    measured = measure_slice(tiny_pair.target, 2, SMALL, device="cpu", dtype="float32")
    assert (measured.ranks, measured.sums) == (2, 2 * whole.config.num_layers)
    timed = {(point.what, point.batch, point.rows) for point in measured.points if point.what != points.ATTENTION}
    assert timed == {
        (points.AUTOREGRESSIVE, 1, 1), (points.VERIFY, 1, 3), (points.VERIFY, 1, 4), (points.AUTOREGRESSIVE, 2, 2),
        (points.VERIFY, 2, 6),
    }  # fmt: skip
    assert {point.model for point in measured.points} == {ROLE} and all(point.seconds > 0 for point in measured.points)
    weights = sum(linear.bytes for linear in whole.decoder.linears())
    keys_and_values = 2 * whole.config.num_layers * whole.config.num_kv_heads * whole.config.head_dim * 4 * 32
    each = next(point.bytes for point in measured.points if point.what == points.VERIFY)
    row = 4 * whole.config.hidden_size  # 259 token ids do not divide: one row of the head is nobody's
    assert each == pytest.approx((weights + keys_and_values) / 2, abs=row)


def test_the_simulator_gets_its_times_by_rows_at_the_first_context() -> None:
    told = rank_slice(
        part((points.AUTOREGRESSIVE, 32, 1, 2.0), (points.VERIFY, 32, 3, 3.0), (points.VERIFY, 64, 3, 9.0))
    )
    assert (told.ranks, told.sums) == (2, 4)
    assert (told.verify_s.at(1), told.verify_s.at(2), told.verify_s.at(3)) == (2.0, 2.5, 3.0)
    assert told.autoregressive_step_s.at(1) == 2.0
    with pytest.raises(ConfigError, match="no part of one of 2 ranks was timed"):
        rank_slice(part())


def test_a_profile_holds_the_parts_that_were_timed() -> None:
    assert hardware_profile(WHOLE, "mine").rank_slices == ()
    slices = [part((points.AUTOREGRESSIVE, 32, 1, 4.0 / ranks), ranks=ranks) for ranks in (2, 4)]
    profile = hardware_profile(replace(WHOLE, slices=slices), "mine")
    assert [(one.ranks, one.verify_s.at(1)) for one in profile.rank_slices] == [(2, 2.0), (4, 1.0)]


def test_what_cannot_be_shared_or_loaded_again_is_refused(tiny_pair: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be shared by 3"):
        measure_slice(tiny_pair.target, 3, SMALL, device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match="has none"):
        measure_slice(None, 2, SMALL, device="cpu")
