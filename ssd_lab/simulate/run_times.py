"""What the phases of a recorded run took, and a hardware profile made of it: the machine as that run found it.

Target and draft that share cores or a device slow each other down; spans recorded while both worked hold that already.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ssd_lab.errors import ConfigError
from ssd_lab.simulate.hardware import HardwareProfile
from ssd_lab.simulate.time_models import AffineTime, TableTime, TimeModel
from ssd_lab.simulate.workload import ReplayRow, recorded_strategy, workload_of_rounds
from ssd_lab.trace import Activity, RoundRecord, Trace
from ssd_lab.trace.spans import Interval, length_s, overlap_s, union

FIRST_ROUNDS = 3  # in which caches are cold
_CHAINS = ("draft", "jit")


@dataclass(frozen=True)
class RunTimes:
    """Median seconds by size. verify: by rows. chain_step: by sequences drafted for. tree_step: by branches, whole tree
    over its depth. link_s: of a round's wait for the draft, what the draft did not work. overhead_s: of a round, what
    is neither verification nor waiting (where nothing overlaps the link is in it). turnaround_s: of the draft, from the
    end of a tree that was waited for to its next work. rounds: how many were read.
    """

    verify: Mapping[int, float]
    chain_step: Mapping[int, float]
    tree_step: Mapping[int, float]
    fast_fallback_s: float
    link_s: float
    overhead_s: float
    turnaround_s: float
    rounds: int

    @classmethod
    def of(cls, trace: Trace) -> RunTimes:
        """Read the spans of a trace's timed rounds, its first ones left out. Raises ConfigError if none has a verify
        span.
        """
        timed = trace.timed_rounds
        rounds = timed[FIRST_ROUNDS:] if len(timed) > 2 * FIRST_ROUNDS else timed
        return cls.of_rounds([one for one in rounds if one.sequences], trace)

    @classmethod
    def of_rounds(cls, rounds: Sequence[RoundRecord], trace: Trace) -> RunTimes:
        """The same of some of a trace's rounds."""
        verify: dict[int, list[float]] = defaultdict(list)
        chains: dict[int, list[float]] = defaultdict(list)
        trees: dict[int, list[float]] = defaultdict(list)
        links, overheads, fast = [], [], []
        for one, rows in zip(rounds, workload_of_rounds(rounds, trace.meta), strict=True):
            spans = _by_name(one.activities)
            if "verify" not in spans:
                continue
            verifying, waiting = _union(spans, "verify"), _union(spans, "wait for draft")
            drafting = _union(spans, *_CHAINS, "tree", "fast")
            # where work is queued on a device, what the draft still had to do first lies within the verify span
            verify_s = length_s(verifying) - overlap_s(drafting, verifying)
            # a round that was started before its draft was told waited for nobody
            own_link_s = length_s(waiting) - overlap_s(union([*drafting, *verifying]), waiting)
            held_up_s = overlap_s(drafting, union([*verifying, *waiting]))
            verify[sum(row.verify_rows for row in rows)].append(verify_s)
            overheads.append(max(0.0, one.end_s - one.start_s - verify_s - own_link_s - held_up_s))
            links.append(own_link_s)
            steps = max(row.steps for row in rows)
            chain_s = length_s(_union(spans, *_CHAINS))
            if steps and chain_s:
                chains[sum(_drafted_now(row) for row in rows) or 1].append(chain_s / steps)
            if steps and "tree" in spans:
                trees[sum(row.branches for row in rows)].append(length_s(_union(spans, "tree")) / steps)
            if "fast" in spans:
                fast.append(length_s(_union(spans, "fast")))
        if not verify:
            raise ConfigError("the trace holds no verify spans to tell times from: record the rounds (record=True)")
        link_s, overhead_s = _median(links), _median(overheads)
        if recorded_strategy(rounds) != "async":  # on the virtual clock only asynchronous rounds have a link
            link_s, overhead_s = 0.0, link_s + overhead_s
        return cls(
            verify=_medians(verify),
            chain_step=_medians(chains),
            tree_step=_medians(trees),
            fast_fallback_s=_median(fast),
            link_s=link_s,
            overhead_s=overhead_s,
            turnaround_s=_median(_turnarounds(rounds, trace)),
            rounds=len(overheads),
        )

    def profile(self, name: str, *, step: Mapping[int, float] | None = None) -> HardwareProfile:
        """A profile of these times. step: verification by rows of an autoregressive run, for the rows that this run
        lacks.
        """
        verify = dict(step or {}) | dict(self.verify)
        chain = self.chain_step or self.tree_step or {1: 0.0}
        return HardwareProfile(
            name=name,
            source=f"the spans of {self.rounds} recorded rounds",
            timed="at work",
            verify_s=TableTime.of(verify),
            draft_step_s=TableTime.of(chain),
            draft_tree_step_s=TableTime.of(self.tree_step or chain),
            autoregressive_step_s=TableTime.of(step) if step else None,
            fast_fallback_s=self.fast_fallback_s,
            link_s=self.link_s,
            overhead_s=self.overhead_s,
            turnaround_s=self.turnaround_s,
        )

    def scaled(self, base: HardwareProfile, name: str, *, depth: int) -> HardwareProfile:
        """Another profile of the same machine, its phases made as slow or fast as they were in this run: the sizes that
        it holds beyond this run's keep their proportion. depth: of this run's trees.
        """
        trees = {
            branches: base.tree_s(steps=depth, branches=branches, rows=max(self.verify)) / depth
            for branches in self.tree_step
        }
        verify = _ratio(self.verify, {rows: base.verify_s.at(rows) for rows in self.verify})
        chain = _ratio(self.chain_step, {count: base.draft_step_s.at(count) for count in self.chain_step})
        tree = _ratio(self.tree_step, trees)
        # a draft seen at one of its two tasks is as slow at the other
        chain, tree = chain or tree or 1.0, tree or chain or 1.0
        extension = base.draft_extension_s
        return base.model_copy(
            update={
                "name": name,
                "timed": "at work",
                "measured_rounds": (),
                "source": f"{base.source}; scaled to {self.rounds} recorded rounds",
                "verify_s": times(base.verify_s, verify or 1.0),
                "draft_step_s": times(base.draft_step_s, chain),
                "draft_tree_step_s": times(base.draft_tree_step_s, tree),
                "draft_extension_s": None if extension is None else times(extension, tree),
                "link_s": self.link_s,
                "overhead_s": self.overhead_s,
                "turnaround_s": self.turnaround_s,
                "fast_fallback_s": self.fast_fallback_s or base.fast_fallback_s,
            }
        )


def times(model: TimeModel, factor: float) -> TimeModel:
    """A time model whose every time is `factor` as long."""
    if isinstance(model, AffineTime):
        return AffineTime(base_s=model.base_s * factor, per_row_s=model.per_row_s * factor)
    return TableTime(rows=model.rows, seconds=tuple(seconds * factor for seconds in model.seconds))


def _by_name(activities: Iterable[Activity]) -> dict[str, list[Activity]]:
    found: dict[str, list[Activity]] = defaultdict(list)
    for activity in activities:
        found[activity.name].append(activity)
    return found


def _union(spans: Mapping[str, Sequence[Activity]], *names: str) -> list[Interval]:
    return union((span.start_s, span.end_s) for name in names for span in spans.get(name, ()))


def _turnarounds(rounds: Sequence[RoundRecord], trace: Trace) -> list[float]:
    """Seconds from each tree that the target waited for to what the draft did next, which the next round recorded."""
    starts: dict[str, list[float]] = defaultdict(list)
    for span in (span for one in trace.rounds for span in one.activities if span.role == "draft"):
        insort(starts[span.lane], span.start_s)
    found = []
    for one in rounds:
        waits = [span for span in one.activities if span.name == "wait for draft"]
        for tree in (span for span in one.activities if span.name == "tree"):
            own = starts[tree.lane]
            after = bisect_left(own, tree.end_s)
            if after < len(own) and any(wait.start_s < tree.end_s < wait.end_s for wait in waits):
                found.append(own[after] - tree.end_s)
    return found


def _drafted_now(row: ReplayRow) -> bool:
    """Were its tokens drafted while the target waited?"""
    return row.hit is not True and row.fallback == "jit" and row.steps > 0


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _medians(by_size: Mapping[int, Sequence[float]]) -> dict[int, float]:
    return {size: statistics.median(values) for size, values in by_size.items()}


def _ratio(measured: Mapping[int, float], expected: Mapping[int, float]) -> float:
    """How much longer things took than expected, 0 if nothing tells."""
    total = sum(expected[size] for size in measured)
    return sum(measured.values()) / total if total else 0.0
