"""Measure a machine with a pair of models: bandwidth, phases by rows and context, rounds of whole runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ssd_lab.errors import ConfigError, RunInterrupted
from ssd_lab.execution.phase import Phase
from ssd_lab.execution.structure import Tensors
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.loader import LoadedModel
from ssd_lab.profile import points
from ssd_lab.profile.answering import fields_of
from ssd_lab.profile.phase_times import PhaseTimer, Work
from ssd_lab.profile.points import Measurement, Point, SlicePoints
from ssd_lab.profile.timing import read_bandwidth, seconds_per_call
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.simulate import HardwareProfile, MeasuredRound, RankSlice, TableTime
from ssd_lab.simulate.hardware import Drafting

DRAFTING: dict[str, Drafting] = {
    "autoregressive": "none", "sync_chain": "chain", "async_tree": "async", "eagle3": "head",
    "eagle3 mode=async": "head async",
}  # fmt: skip
TRIES = 3  # of a point that noise left no sense in
OnPoint = Callable[[Point], None]


@dataclass(frozen=True)
class Sizes:
    """What to measure. rows: row counts of verification at batch 1 and the first context."""

    k: int = 7
    fan_out: tuple[int, ...] = (3,) * 8
    batches: tuple[int, ...] = (1, 4, 16)
    contexts: tuple[int, ...] = (512, 8192)
    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 24, 32, 64)
    repeats: int = 20

    def __post_init__(self) -> None:
        if len(self.fan_out) != self.k + 1:
            raise ConfigError(f"the fan-out has {len(self.fan_out)} numbers; k = {self.k} needs {self.k + 1}")


def measure_phases(
    target: LoadedModel,
    draft: LoadedModel | None,
    sizes: Sizes,
    *,
    eager: bool = False,
    on_point: OnPoint = lambda point: None,
) -> Measurement:
    """Phases alone, one after the other. A size whose K/V does not fit into the free memory is left out. Ctrl-C raises
    RunInterrupted with a measurement of what was timed.
    """
    device = target.decoder.device
    bandwidth = read_bandwidth(device)
    measured: list[Point] = []
    unusable: list[str] = []

    def add(point: Point) -> None:
        measured.append(point)
        on_point(point)

    models = {"target": _named(target)} | ({} if draft is None else {"draft": _named(draft)})
    found = Measurement(
        bandwidth, models, sizes.k, sizes.fan_out, measured, device=device_name(device), unusable=unusable
    )
    try:
        for context, batch in itertools.product(sizes.contexts, sizes.batches):
            work = Work(batch, context)
            if fits(target, work):
                measure_target(target, work, sizes, eager, add)
            if draft is not None and fits(draft, work, sum(sizes.fan_out) * sizes.k):
                unusable += _measure_draft(draft, work, sizes, eager, add)
    except KeyboardInterrupt as stopped:
        raise RunInterrupted(found, f"interrupted: {len(measured)} phases are timed") from stopped
    return found


def device_name(device: torch.device) -> str:
    """As a profile calls it."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _named(model: LoadedModel) -> str:
    """Its source; of a folder the last part, which is no secret of this machine."""
    source = str(model.source)
    return Path(source).name if Path(source).exists() else source


def fits(model: LoadedModel, work: Work, scratch_positions: int = 0) -> bool:
    """Is there memory for the K/V of this work? On a CPU a quarter of what is free may be taken."""
    device = model.decoder.device
    if device.type != "cuda":
        return work.batch * work.context <= 1 << 15
    needed = PhaseTimer.cache_bytes(model, work, scratch_positions)
    return needed < 0.9 * torch.cuda.mem_get_info(device)[0]


def measure_target(
    model: LoadedModel, work: Work, sizes: Sizes, eager: bool, add: OnPoint, *, role: str = "target"
) -> None:
    """Forwards of a target, or of one rank's part of it: of the usual row counts, at batch 1 and the first context of
    all.
    """
    with PhaseTimer(model, work, eager=eager) as timer:
        moved = timer.weight_bytes + timer.kv_bytes(work)

        def verified(k: int) -> Point:
            seconds = timer.verify_s(work, k, repeats=sizes.repeats)
            what = points.AUTOREGRESSIVE if k == 0 else points.VERIFY
            return Point(what, role, work.batch, work.context, work.batch * (k + 1), seconds, moved)

        lengths = {1, sizes.k + 1}
        if work.batch == 1 and work.context == sizes.contexts[0]:
            lengths |= set(sizes.rows)
        for rows in sorted(lengths):
            add(verified(rows - 1))
        seconds = _attention_s(timer, work, sizes.repeats)
        add(Point(points.ATTENTION, role, work.batch, work.context, work.batch, seconds, timer.kv_bytes(work)))


def _measure_draft(model: LoadedModel, work: Work, sizes: Sizes, eager: bool, add: OnPoint) -> list[str]:
    """Returns what could not be told."""
    branches = sum(sizes.fan_out)
    with PhaseTimer(model, work, scratch_positions=branches * sizes.k, eager=eager) as timer:
        moved = timer.weight_bytes + timer.kv_bytes(work)
        place = ("draft", work.batch, work.context)
        chain_s = timer.chain_s(work, sizes.k, repeats=sizes.repeats)
        add(Point(points.CHAIN_STEP, *place, work.batch, chain_s / sizes.k, moved))
        # a tree is one forward over the k tokens under verification, and k over all branches
        for _ in range(TRIES):
            extension_s = timer.verify_s(work, sizes.k, repeats=sizes.repeats)
            tree_s = timer.tree_s(work, sizes.k, sizes.fan_out, repeats=sizes.repeats)
            if tree_s > extension_s:
                break
        add(Point(points.EXTENSION, *place, work.batch * (sizes.k + 1), extension_s, moved))
        if tree_s <= extension_s:
            what = f"{points.TREE_STEP}, batch {work.batch}, context {work.context}"
            return [f"{what}: the tree took no longer than its first forward, {TRIES} times on a busy machine"]
        step_s = (tree_s - extension_s) / sizes.k
        add(Point(points.TREE_STEP, *place, work.batch * branches, step_s, moved))
    return []


@torch.inference_mode()
def _attention_s(timer: PhaseTimer, work: Work, repeats: int) -> float:
    """Attention of one row a sequence over all layers, its planning included, nothing else."""
    model, runner = timer.model, timer.runner
    config = model.config
    rows, _ = timer.place(work)
    queries = torch.randn(len(rows), config.num_heads, config.head_dim, dtype=model.dtype, device=timer.device)
    phase, inputs = _AttentionPhase(runner.bound(work.context)), (rows.lengths, rows.tables, queries)
    return seconds_per_call(lambda: runner.run(phase, inputs), timer.device, repeats=repeats)


@dataclass(frozen=True)
class _AttentionPhase(Phase[StepRunner, Tensors, Tensors]):
    """Attention alone of all layers; inputs: lengths, tables, queries."""

    name: ClassVar[str] = "attention"

    context: int

    def run(self, runner: StepRunner, inputs: Tensors) -> Tensors:
        """Planned once, as in a forward."""
        lengths, tables, queries = inputs
        ids = torch.zeros(len(lengths), 1, dtype=torch.int64, device=lengths.device)
        step = StepInput(ids, lengths[:, None] - 1, ids, tables, lengths[:, None], self.context)
        plan = runner.decoder.plan(step, runner.cache)
        return tuple(runner.decoder.kernels.attention(queries, layer, plan) for layer in runner.cache.layers)


def hardware_profile(measurement: Measurement, name: str) -> HardwareProfile:
    """What the simulator takes: times by rows at the first context. Raises ConfigError if there was no draft, or what
    the profile needs is among the unusable points.
    """
    chains = _by_rows(measurement.points, points.CHAIN_STEP, "draft")
    trees = _by_rows(measurement.points, points.TREE_STEP, "draft")
    verify = _by_rows(measurement.points, points.VERIFY, "target") | _by_rows(
        measurement.points, points.AUTOREGRESSIVE, "target"
    )
    if not chains or not verify or not (trees or measurement.unusable):
        raise ConfigError("a hardware profile needs the times of a target and of a draft: give --draft")
    if not trees:
        raise ConfigError(f"no hardware profile can be made: {'; '.join(measurement.unusable)}: measure again")
    known = [point.overhead_s for point in measurement.rounds if point.overhead_s is not None]
    overheads = [overhead_s for overhead_s in known if overhead_s > 0]
    steps = {point.batch: point.step_s for point in measurement.rounds if point.step_s is not None}
    return HardwareProfile(
        name=name,
        source=f"measured by ssd-lab profile: {measurement.models['target']} and {measurement.models['draft']}",
        caveats=tuple(f"not measured: {one}" for one in measurement.unusable),
        target_device=measurement.device,
        draft_device=measurement.device,
        verify_s=TableTime.of(verify),
        draft_step_s=TableTime.of(chains),
        draft_tree_step_s=TableTime.of(trees),
        draft_extension_s=TableTime.of(_by_rows(measurement.points, points.EXTENSION, "draft")),
        autoregressive_step_s=TableTime.of(_by_rows(measurement.points, points.AUTOREGRESSIVE, "target")),
        head_step_s=TableTime.of(steps) if steps else None,
        overhead_s=0.0 if known and measurement.rounds[0].priced_s is not None else min(overheads, default=0.0),
        measured_rounds=tuple(
            MeasuredRound(
                drafting=DRAFTING[point.strategy], sequences=point.batch, seconds=point.mean_s, priced_s=point.priced_s
            )
            for point in measurement.rounds
            if point.mean_s is not None and point.priced_s is not None
        ),
        rank_slices=tuple(rank_slice(one) for one in measurement.slices),
        **fields_of(
            {point.batch: point.fallback_host_s for point in measurement.rounds if point.fallback_host_s is not None},
            [point.turnaround_s for point in measurement.rounds],
        ),
    )


def rank_slice(measured: SlicePoints) -> RankSlice:
    """What the simulator takes: times by rows at the first context. Raises ConfigError if nothing was timed."""
    role = points.rank_of(measured.ranks)
    steps = _by_rows(measured.points, points.AUTOREGRESSIVE, role)
    if not steps:
        raise ConfigError(f"no part of one of {measured.ranks} ranks was timed: its K/V found no room")
    verify = _by_rows(measured.points, points.VERIFY, role) | steps
    return RankSlice(
        ranks=measured.ranks,
        sums=measured.sums,
        verify_s=TableTime.of(verify),
        autoregressive_step_s=TableTime.of(steps),
    )


def _by_rows(measured: Sequence[Point], what: str, model: str) -> dict[int, float]:
    """Of one kind of phase, at the first context."""
    context = min((point.context for point in measured), default=0)
    return {
        point.rows: point.seconds
        for point in measured
        if point.what == what and point.model == model and point.context == context
    }
