"""The simulator against real rounds: predicted times beside recorded ones."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ssd_lab.common.statistics import ratio
from ssd_lab.errors import ConfigError
from ssd_lab.profile.rounds import HeldOut
from ssd_lab.simulate import HardwareProfile, simulate
from ssd_lab.simulate.clock import round_on_clock
from ssd_lab.simulate.run_times import FIRST_ROUNDS, RunTimes
from ssd_lab.simulate.workload import ReplayRow, recorded_strategy, workload_of_rounds
from ssd_lab.trace import RoundRecord, Trace

ALLOWED_ERROR = 0.10


@dataclass(frozen=True)
class CheckedRounds:
    """Runs of one strategy. recorded_s: the usual round of the first. predicted_s: the simulator's, from times that the
    other half of the same run's rounds took. rates: tokens per second, of each run as measured, and as `simulate` says
    from the hardware profile that was measured before (empty: none was given).
    """

    strategy: str
    rounds: int
    recorded_s: float
    predicted_s: float
    batch: int = 1
    rates: tuple[tuple[float, float], ...] = ()

    @property
    def ratios(self) -> list[float]:
        """Predicted over measured, of each run."""
        return [predicted / measured for measured, predicted in self.rates]

    @property
    def error(self) -> float:
        """(predicted - recorded) / recorded."""
        return self.predicted_s / self.recorded_s - 1

    @property
    def holds(self) -> bool:
        """Within 10 %?"""
        return abs(self.error) <= ALLOWED_ERROR


@dataclass(frozen=True)
class Pair:
    """Two strategies at one batch size that the measured speeds tell apart: how many times as fast the one is."""

    faster: str
    slower: str
    batch: int
    measured: float
    predicted: float

    @property
    def holds(self) -> bool:
        """Is the order predicted?"""
        return self.predicted > 1


def told_apart(checked: Sequence[CheckedRounds]) -> list[Pair]:
    """Of each batch size the pairs of which the 95 % interval of the ratio of measured speeds does not hold 1."""
    found = []
    for one, other in itertools.permutations(checked, 2):
        if one.batch != other.batch or not one.rates or not other.rates:
            continue
        measured = ratio([rate for rate, _ in one.rates], [rate for rate, _ in other.rates])
        predicted = ratio([rate for _, rate in one.rates], [rate for _, rate in other.rates])
        if measured.low is not None and measured.low > 1:
            found.append(Pair(one.strategy, other.strategy, one.batch, measured.mean, predicted.mean))
    return found


def check_trace(trace: Trace, strategy: str) -> CheckedRounds:
    """Times from every other round of a kind (rows and misses), prediction of those between: both halves hold each kind
    that came twice. Raises ConfigError for fewer than eight rounds.
    """
    rounds = _settled(trace)
    if len(rounds) < 2 * 4:
        raise ConfigError(f"{len(rounds)} settled rounds were recorded; a check needs at least 8: run longer")
    halves: tuple[list[RoundRecord], list[RoundRecord]] = ([], [])
    seen: Counter[tuple[int, int]] = Counter()
    for one, rows in zip(rounds, workload_of_rounds(rounds, trace.meta), strict=True):
        halves[seen[_kind(rows)] % 2].append(one)
        seen[_kind(rows)] += 1
    profile = RunTimes.of_rounds(halves[0], trace).profile(strategy)
    recorded_s, predicted_s = usual_round_s(halves[1], trace, profile)
    return CheckedRounds(strategy, len(rounds), recorded_s, predicted_s)


def usual_round_s(rounds: Sequence[RoundRecord], trace: Trace, profile: HardwareProfile) -> tuple[float, float]:
    """Recorded and predicted seconds of the usual round: medians of rounds alike (rows and misses), weighed by how many
    there are. A busy machine's outliers have no say.
    """
    strategy = recorded_strategy(trace.rounds)
    recorded: dict[tuple[int, int], list[float]] = defaultdict(list)
    predicted: dict[tuple[int, int], list[float]] = defaultdict(list)
    for one, rows in zip(rounds, workload_of_rounds(rounds, trace.meta), strict=True):
        recorded[_kind(rows)].append(one.end_s - one.start_s)
        predicted[_kind(rows)].append(round_on_clock(0, 0.0, rows, strategy, profile, "full").end_s)
    return tuple(  # type: ignore[return-value]
        sum(len(times) * statistics.median(times) for times in groups.values()) / len(rounds)
        for groups in (recorded, predicted)
    )


def check_rounds(held_out: Sequence[HeldOut], hardware: HardwareProfile) -> list[CheckedRounds]:
    """Each kind of run beside what the simulator says of it. Raises ConfigError for runs of too few rounds."""
    runs: dict[tuple[str, int], list[Trace]] = defaultdict(list)
    for one in held_out:
        runs[one.strategy, one.batch].append(one.trace)
    return [
        replace(check_trace(traces[0], strategy), batch=batch, rates=tuple(_rates(trace, hardware) for trace in traces))
        for (strategy, batch), traces in runs.items()
    ]


def _rates(trace: Trace, hardware: HardwareProfile) -> tuple[float, float]:
    """Measured, and predicted."""
    simulated = simulate(trace, hardware, miss_cost="full")
    return simulated.recorded_tokens_per_second or 0.0, simulated.tokens_per_second


def _kind(rows: Sequence[ReplayRow]) -> tuple[int, int]:
    """Verified rows and misses: rounds of one kind take the same steps."""
    return sum(row.verify_rows for row in rows), sum(row.hit is not True for row in rows)


def _settled(trace: Trace) -> list[RoundRecord]:
    """Whole rounds: the last ones of a text may draft more than they verify."""
    rounds = [one for one in trace.timed_rounds[FIRST_ROUNDS:] if one.sequences]
    most = max((len(s.draft_tokens) for one in rounds for s in one.sequences), default=0)
    return [one for one in rounds if all(len(s.draft_tokens) == most for s in one.sequences)]
