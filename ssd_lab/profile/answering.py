"""How long rounds of asynchronous runs wait for the host: nothing hides its work once outcome and tree are there."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ssd_lab.simulate import HardwareProfile, TableTime
from ssd_lab.simulate.clock import round_on_clock
from ssd_lab.simulate.workload import workload_of_rounds
from ssd_lab.trace import RoundRecord, Trace
from ssd_lab.trace.spans import Interval


@dataclass
class Answering:
    """Seconds from the moment at which a round's outcome and the tree that was prepared for it are both there.

    fallback_s: of each round with a chain, until that is drafted, without the chain's own steps: the outcome is read,
    the draft told, branches looked up, the chain queued. turnaround_s: of each round in which all hit and the tree came
    last, until the next tree begins.
    """

    fallback_s: list[float] = field(default_factory=list)
    turnaround_s: list[float] = field(default_factory=list)

    @property
    def fallback(self) -> float | None:
        """Median seconds, None if there was no such round."""
        return statistics.median(self.fallback_s) if self.fallback_s else None

    @property
    def turnaround(self) -> float | None:
        """Median seconds, None if there was no such round."""
        return statistics.median(self.turnaround_s) if self.turnaround_s else None

    def add(self, rounds: Sequence[RoundRecord], trace: Trace, phases: HardwareProfile) -> None:
        """These rounds of a trace. phases: prices the chains' steps."""
        wanted = {one.index for one in rounds}
        trees = sorted((a.start_s, a.end_s) for one in trace.rounds for a in one.activities if a.name == "tree")
        for before, one in pairwise(trace.rounds):
            outcome_s = max((a.end_s for a in before.activities if a.name == "verify"), default=None)
            if outcome_s is None or one.index not in wanted or any(s.cache_hit is None for s in one.sequences):
                continue
            after = bisect_left(trees, (outcome_s, outcome_s))
            if after:
                self._add(one, trace, phases, outcome_s, trees[after - 1 : after + 1])

    def _add(
        self, one: RoundRecord, trace: Trace, phases: HardwareProfile, outcome_s: float, trees: Sequence[Interval]
    ) -> None:
        """trees: the one that was prepared for the outcome, and the next one."""
        tree_s = trees[0][1]
        chain_s = max((a.end_s for a in one.activities if a.name == "jit"), default=None)
        if chain_s is not None:
            (rows,) = workload_of_rounds([one], trace.meta)
            priced = round_on_clock(0, 0.0, rows, "async", phases, "full").time_by_cause
            self.fallback_s.append(max(0.0, chain_s - max(outcome_s, tree_s) - priced["fallback"]))
        elif len(trees) > 1 and tree_s > outcome_s and all(s.cache_hit for s in one.sequences):
            self.turnaround_s.append(max(0.0, trees[1][0] - tree_s))


def host_fields(answered: Mapping[int, Answering]) -> dict[str, Any]:
    """What a hardware profile holds of it, as far as it is known. answered: by sequences together."""
    return fields_of(
        {batch: one.fallback for batch, one in answered.items()}, [one.turnaround for one in answered.values()]
    )


def fields_of(fallback_s: Mapping[int, float | None], turnaround_s: Sequence[float | None]) -> dict[str, Any]:
    """The same from medians: the fallback's by sequences together."""
    fields: dict[str, Any] = {}
    known = {batch: seconds for batch, seconds in fallback_s.items() if seconds is not None}
    if known:
        fields["fallback_host_s"] = TableTime.of(known)
    turnarounds = [seconds for seconds in turnaround_s if seconds is not None]
    if turnarounds:
        fields["turnaround_s"] = statistics.median(turnarounds)
    return fields
