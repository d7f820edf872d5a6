"""What a virtual clock replays: rounds reduced to the facts that cost time, from a trace or drawn from rates."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ssd_lab.errors import ConfigError
from ssd_lab.trace import Metrics, RoundRecord, SequenceRound, Trace, TreeRecord, compute_metrics

Strategy = Literal["autoregressive", "sync", "async", "free"]
DEFAULT_FAN_OUT = 3  # ssd_lab's default f, where neither a tree nor a setting says how many branches were drafted


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One sequence in one round.

    hit: None where no lookup happened; its tokens were then drafted while the target waited. steps: draft steps its
    tokens needed. verify_rows: rows of the target's forward. branches: drafted during verification.
    """

    sequence: int
    emitted: int
    steps: int
    verify_rows: int
    branches: int
    hit: bool | None
    fallback: Literal["jit", "fast"]


@dataclass(frozen=True)
class Workload:
    """Rounds (each a list of rows), the strategy they were recorded with, and what to tell whoever reads the result.

    steady: a stretch of an endless run, every slot always taken, rather than sequences that end.
    """

    rounds: list[list[ReplayRow]]
    strategy: Strategy
    caveats: tuple[str, ...] = ()
    steady: bool = False


@dataclass(frozen=True)
class Rates:
    """A synthetic run: each draft token is accepted with probability `acceptance` until the first that is not.

    hit_rate: probability that a lookup is a hit, None for a strategy without a cache. miss_acceptance: of the
    fallback's tokens (None: as `acceptance`). branches: per sequence (None: 3 for each accepted length). rounds, batch:
    how much is simulated. Raises ConfigError for a value outside its range.
    """

    acceptance: float
    k: int
    hit_rate: float | None = None
    miss_acceptance: float | None = None
    fallback: Literal["jit", "fast"] = "jit"
    branches: int | None = None
    batch: int = 1
    rounds: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("acceptance", "hit_rate", "miss_acceptance"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; it is a probability, 0 to 1")
        for name, least in (("k", 0), ("batch", 1), ("rounds", 1), ("branches", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")
        if self.fallback not in ("jit", "fast"):
            raise ConfigError(f"fallback is {self.fallback!r}; allowed: jit, fast")

    @classmethod
    def from_metrics(cls, metrics: Metrics, k: int, *, seed: int = 0) -> Rates:
        """Rates that resemble a run of which only totals are known; raises ConfigError if they lack the acceptance."""
        if k and metrics.acceptance_rate is None:
            raise ConfigError("these metrics have no acceptance rate: record the rounds, or give Rates yourself")
        return cls(
            acceptance=metrics.acceptance_rate or 0.0,
            k=k,
            hit_rate=metrics.cache_hit_rate,
            fallback="fast" if metrics.origin_counts.get("fast") else "jit",
            batch=max(1, round(metrics.num_sequence_rounds / max(1, metrics.num_rounds))),
            seed=seed,
        )

    def workload(self) -> Workload:
        """Draw the rounds; the same rates and seed give the same ones."""
        generator = random.Random(self.seed)
        rounds = [[self._row(i, generator) for i in range(self.batch)] for _ in range(self.rounds)]
        return Workload(rounds, self._strategy, steady=True)

    @property
    def _strategy(self) -> Strategy:
        if self.k == 0:
            return "autoregressive"
        return "sync" if self.hit_rate is None else "async"

    def _row(self, sequence: int, generator: random.Random) -> ReplayRow:
        hit = None if self.hit_rate is None else generator.random() < self.hit_rate
        acceptance = self.acceptance if hit is not False or self.miss_acceptance is None else self.miss_acceptance
        accepted = 0
        while accepted < self.k and generator.random() < acceptance:
            accepted += 1
        branches = DEFAULT_FAN_OUT * (self.k + 1) if self.branches is None else self.branches
        return ReplayRow(sequence, accepted + 1, self.k, self.k + 1, branches, hit, self.fallback)


def workload_of_trace(trace: Trace) -> Workload:
    """The trace's rounds, or rounds drawn from its totals if it recorded none; raises ConfigError if it has neither."""
    if not trace.rounds:
        return _workload_of_totals(trace)
    rounds = [one for one in trace.rounds if one.sequences]
    return Workload(workload_of_rounds(rounds, trace.meta), recorded_strategy(rounds))


def workload_of_rounds(rounds: Sequence[RoundRecord], meta: Mapping[str, Any]) -> list[list[ReplayRow]]:
    """Recorded rounds, each as its rows; meta: of their trace."""
    strategy = recorded_strategy(rounds)
    settings = meta.get("strategy")
    fan_out = settings.get("f") if isinstance(settings, dict) else None
    fan_out = fan_out if isinstance(fan_out, int) else DEFAULT_FAN_OUT
    return [[_row_of_record(record, strategy, fan_out) for record in one.sequences] for one in rounds]


def recorded_strategy(rounds: Sequence[RoundRecord]) -> Strategy:
    """How the rounds' draft tokens came about, told from the records: strategies of users need no registration."""
    records = [s for r in rounds for s in r.sequences]
    origins = {s.origin for s in records}
    if origins & {"hit", "jit", "fast"} or any(s.cache_hit is not None for s in records):
        return "async"
    if "draft" in origins:
        return "sync"
    return "free" if any(s.draft_tokens for s in records) else "autoregressive"


def with_strategy(workload: Workload, strategy: Strategy | None, hit_rate: float | None, seed: int) -> Workload:
    """The same accepted lengths under another strategy; `hit_rate` draws the lookups anew.

    Raises ConfigError if the strategy is unknown, has no draft tokens to work with, or does not fit `hit_rate`.
    """
    strategy = strategy or workload.strategy
    if strategy not in get_args(Strategy):
        raise ConfigError(f"strategy is {strategy!r}; the simulator knows {', '.join(get_args(Strategy))}")
    if hit_rate is not None and not (strategy == "async" and 0 <= hit_rate <= 1):
        raise ConfigError(f"hit_rate is {hit_rate} for {strategy}; it is a probability, 0 to 1, and for async alone")
    if strategy in ("sync", "async") and workload.strategy == "autoregressive":
        raise ConfigError(
            f"these rounds have no draft tokens, so nothing is known of {strategy}: record a speculative run"
        )
    if strategy == "async" and workload.strategy != "async" and hit_rate is None:
        raise ConfigError("these rounds had no cache: give hit_rate= to simulate async, e.g. hit_rate=0.85")
    rounds, caveats = workload.rounds, workload.caveats
    if hit_rate is not None:
        rounds = _with_drawn_hits(rounds, hit_rate, random.Random(seed))
        caveats += ("hits were drawn, not recorded",)
    if (strategy != "async" or hit_rate is not None) and any(row.fallback == "fast" for rows in rounds for row in rows):
        caveats += ("some accepted lengths are those of the fast fallback's tokens",)
    return replace(workload, rounds=rounds, strategy=strategy, caveats=caveats)


def _with_drawn_hits(rounds: list[list[ReplayRow]], hit_rate: float, generator: random.Random) -> list[list[ReplayRow]]:
    started: set[int] = set()
    drawn = []
    for rows in rounds:
        # a sequence's first tokens come from no cache: there was no outcome to prepare for
        looked_up = [row.hit is not None or row.sequence in started for row in rows]
        hits = [generator.random() < hit_rate if looked else None for looked in looked_up]
        drawn.append([replace(row, hit=hit) for row, hit in zip(rows, hits, strict=True)])
        started.update(row.sequence for row in rows)
    return drawn


def _row_of_record(record: SequenceRound, strategy: Strategy, fan_out: int) -> ReplayRow:
    steps = verify_draft = len(record.draft_tokens)
    if strategy == "sync" and record.origin in ("custom", "expected"):  # beside a draft's: guessed without a model
        steps = 0
    branches = fan_out * (steps + 1) if record.fan_out is None else sum(record.fan_out)
    if record.tree is not None and strategy == "async":
        # the chain and every branch are runs of parent = previous node; the chain's length is no help, for near the end
        # of a text fewer tokens are verified than were drafted
        branches = sum(parent != node - 1 for node, parent in enumerate(record.tree.parents))
    elif record.tree is not None:  # the tree itself was verified
        verify_draft = len(record.tree.tokens)
        steps = max(steps, _depth(record.tree))
    fallback: Literal["jit", "fast"] = "fast" if record.origin == "fast" else "jit"
    return ReplayRow(
        record.request_id, record.num_emitted, steps, verify_draft + 1, branches, record.cache_hit, fallback
    )


def _depth(tree: TreeRecord) -> int:
    depths: list[int] = []
    for parent in tree.parents:  # parents come before their children
        depths.append(1 if parent < 0 else depths[parent] + 1)
    return max(depths, default=0)


def _workload_of_totals(trace: Trace) -> Workload:
    metrics = compute_metrics(trace)
    if not metrics.num_sequence_rounds:
        raise ConfigError("the trace has neither rounds nor totals: nothing to simulate")
    rates = Rates.from_metrics(metrics, k=len(metrics.accepted_by_position))
    strategy: Strategy = "free" if rates.hit_rate is None and metrics.origin_counts.get("custom") else rates._strategy
    caveats = ("drawn from the run's mean rates: its rounds were not recorded",)
    return replace(rates.workload(), strategy=strategy, caveats=caveats)
