"""From which batch size speculation should be off: the same rates drawn at other batch sizes on the virtual clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ssd_lab.explain.terms import RunMachine
from ssd_lab.simulate.simulation import simulate
from ssd_lab.simulate.workload import Rates, Workload
from ssd_lab.trace import Metrics

BATCHES = (1, 2, 4, 8, 16, 32, 64)
_ROUNDS = 2000  # sequence-rounds drawn at each batch size


def speedup_by_batch(
    metrics: Metrics, workload: Workload, machine: RunMachine, batches: tuple[int, ...] = BATCHES
) -> dict[int, float]:
    """Speed-up over the machine's autoregressive decoding of the same tokens, by batch size."""
    rows = [row for one in workload.rounds for row in one]
    k = max(1, round(sum(row.verify_rows - 1 for row in rows) / len(rows)))
    rates = Rates.from_metrics(metrics, k=k)
    if workload.strategy == "async":
        rates = replace(rates, branches=round(sum(row.branches for row in rows) / len(rows)))
    found = {}
    for batch in batches:
        drawn = replace(rates, batch=batch, rounds=max(50, _ROUNDS // batch))
        found[batch] = simulate(drawn, machine.profile, strategy=workload.strategy, miss_cost=machine.miss_cost).speedup
    return found


def off_from(speedups: Mapping[int, float]) -> int | None:
    """The smallest batch size from which on speculation is no faster; None if it is faster at the largest one tried."""
    off = None
    for batch in sorted(speedups, reverse=True):
        if speedups[batch] > 1:
            return off
        off = batch
    return off
