"""Rounds of a scenario drawn from an outcome model; what depends on the clock (auto fallback) runs on it."""

from __future__ import annotations

import random
from collections.abc import Callable

from ssd_lab.learning.fallback_choice import FallbackKind, MeasuredRound
from ssd_lab.simulate.clock import MissCost, round_on_clock
from ssd_lab.simulate.hardware import HardwareProfile
from ssd_lab.simulate.outcome_model import OutcomeModel, draw_rank
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.simulate.workload import ReplayRow, Strategy, Workload


def draw_workload(model: OutcomeModel, scenario: Scenario, profile: HardwareProfile, miss_cost: MissCost) -> Workload:
    """As many rounds as the scenario says, every slot always taken; the same seed gives the same rounds."""
    generator = random.Random(scenario.seed)
    if scenario.drafted_by == "async":
        return Workload(_async_rounds(model, scenario, profile, miss_cost, generator), "async", steady=True)
    clock, row = _SYNCHRONOUS[scenario.drafted_by]
    rounds = [
        [row(model, scenario, generator, sequence) for sequence in range(scenario.batch)]
        for _ in range(scenario.rounds)
    ]
    return Workload(rounds, clock, steady=True)


def _async_rounds(
    model: OutcomeModel, scenario: Scenario, profile: HardwareProfile, miss_cost: MissCost, generator: random.Random
) -> list[list[ReplayRow]]:
    k, batch = scenario.k, scenario.batch
    learner, chooser = scenario.learner(), scenario.chooser()
    hits: list[bool | None] = [None] * batch  # before its first round a sequence has no outcome to look up
    rounds = []
    for _ in range(scenario.rounds):
        missed = sum(hit is not True for hit in hits)
        fallback: FallbackKind = chooser.choose(batch, missed) if missed else "jit"
        rows, following = [], []
        for sequence, hit in enumerate(hits):
            began_with_hit = hit is True
            accepted, rank = model.began_with("hit" if began_with_hit else fallback).draw(generator, k)
            counts = learner.counts(began_with_hit)
            rows.append(ReplayRow(sequence, accepted + 1, k, k + 1, sum(counts), hit, fallback))
            following.append(rank < counts[accepted])
            learner.observe(began_with_hit, accepted, rank, k)
        timed = round_on_clock(0, 0.0, rows, "async", profile, miss_cost)
        chooser.observe(
            MeasuredRound(
                batch=batch,
                missed=missed,
                kind=fallback if missed else None,
                tokens=timed.emitted,
                missed_tokens=sum(row.emitted for row in rows if row.hit is not True),
                round_s=timed.end_s,
                fallback_s=timed.time_by_cause["fallback"],
            )
        )
        rounds.append(rows)
        hits = list(following)
    return rounds


def _plain_row(model: OutcomeModel, scenario: Scenario, generator: random.Random, sequence: int) -> ReplayRow:
    return ReplayRow(sequence, 1, 0, 1, 0, None, "jit")


def _chain_row(model: OutcomeModel, scenario: Scenario, generator: random.Random, sequence: int) -> ReplayRow:
    accepted, _ = model.jit.draw(generator, scenario.k)
    return ReplayRow(sequence, accepted + 1, scenario.k, scenario.k + 1, 0, None, "jit")


def _tree_row(model: OutcomeModel, scenario: Scenario, generator: random.Random, sequence: int) -> ReplayRow:
    """A comb: where the draft's first choice is refused, its next likeliest may be accepted and end the path."""
    widths = scenario.widths or (1,) * scenario.k
    accepted, _ = model.jit.draw(generator, scenario.k)
    beside = accepted < scenario.k and draw_rank(generator, model.jit.rejected) < widths[accepted] - 1
    return ReplayRow(sequence, accepted + beside + 1, scenario.k, sum(widths) + 1, 0, None, "jit")


def _lookup_row(model: OutcomeModel, scenario: Scenario, generator: random.Random, sequence: int) -> ReplayRow:
    if generator.random() >= model.lookup_rate:
        return _plain_row(model, scenario, generator, sequence)
    accepted, _ = model.began_with("lookup").draw(generator, scenario.k)
    return ReplayRow(sequence, accepted + 1, 0, scenario.k + 1, 0, None, "jit")


def _cascade_row(model: OutcomeModel, scenario: Scenario, generator: random.Random, sequence: int) -> ReplayRow:
    row = _lookup_row(model, scenario, generator, sequence)
    return row if row.verify_rows > 1 else _chain_row(model, scenario, generator, sequence)


_Row = Callable[[OutcomeModel, Scenario, random.Random, int], ReplayRow]
_SYNCHRONOUS: dict[str, tuple[Strategy, _Row]] = {
    "none": ("autoregressive", _plain_row),
    "chain": ("sync", _chain_row),
    "tree": ("sync", _tree_row),
    "lookup": ("free", _lookup_row),
    "cascade": ("sync", _cascade_row),
}
