"""What a target's forward costs if several devices share it: one rank's part as measured, and the sums over them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from ssd_lab.simulate.time_models import AffineTime, FrozenRecord, TableTime, TimeModel

ASSUMED_SUM_S = AffineTime(base_s=2.7e-6, per_row_s=5.4e-8)  # rows of 4,096 over two H200, docs/results/two-gpus.md


class RankSlice(FrozenRecord):
    """One rank's part of the target, timed on one device without the others: what they wait for each other is not in
    it.
    """

    ranks: int = Field(ge=2, description="devices that share the target")
    sums: int = Field(ge=0, description="over all ranks, within one forward: two a layer")
    verify_s: TimeModel = Field(description="one rank's part of a target forward, by rows")
    autoregressive_step_s: TimeModel = Field(description="the same of an autoregressive step, by sequences")


def slice_of(slices: Sequence[RankSlice], ranks: int) -> RankSlice | None:
    """The part of one of so many ranks, None if it was not measured."""
    return next((one for one in slices if one.ranks == ranks), None)


def divided(whole: TimeModel, ranks: int) -> TimeModel:
    """An equal part of a forward's time: less than a rank takes, whose smaller products reach less bandwidth."""
    if isinstance(whole, AffineTime):
        return AffineTime(base_s=whole.base_s / ranks, per_row_s=whole.per_row_s / ranks)
    return TableTime(rows=whole.rows, seconds=tuple(seconds / ranks for seconds in whole.seconds))


def with_sums(part: TimeModel, sums: int, sum_s: TimeModel) -> TimeModel:
    """A forward that also makes so many sums of its rows; its points and the sums' are kept."""
    if isinstance(part, AffineTime) and isinstance(sum_s, AffineTime):
        per_row_s = part.per_row_s + sums * sum_s.per_row_s
        return AffineTime(base_s=part.base_s + sums * sum_s.base_s, per_row_s=per_row_s)
    rows = {count for model in (part, sum_s) if isinstance(model, TableTime) for count in model.rows}
    return TableTime.of({count: part.at(count) + sums * sum_s.at(count) for count in rows})
