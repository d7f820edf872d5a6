"""The simulator against real rounds: predicted times beside recorded ones."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssd_lab import demo
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.models.loader import LoadedModel
from ssd_lab.simulate import HardwareProfile
from ssd_lab.simulate.clock import round_on_clock
from ssd_lab.simulate.run_times import FIRST_ROUNDS, RunTimes
from ssd_lab.simulate.workload import ReplayRow, recorded_strategy, workload_of_rounds
from ssd_lab.trace import RoundRecord, Trace

ALLOWED_ERROR = 0.10


@dataclass(frozen=True)
class CheckedRounds:
    """One run. recorded_s: its usual round. predicted_s: the simulator's, from times that the other half of the same
    run's rounds took. from_phases_s: the simulator's, from phases timed alone and the overhead of an autoregressive
    round (None: not asked for); that knows nothing of what target and draft take from each other.
    """

    strategy: str
    rounds: int
    recorded_s: float
    predicted_s: float
    from_phases_s: float | None = None

    @property
    def error(self) -> float:
        """(predicted - recorded) / recorded."""
        return self.predicted_s / self.recorded_s - 1

    @property
    def holds(self) -> bool:
        """Within 10 %?"""
        return abs(self.error) <= ALLOWED_ERROR


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


def check_rounds(
    target: LoadedModel,
    draft: LoadedModel,
    *,
    phases: HardwareProfile | None = None,
    k: int = 4,
    f: int = 1,
    max_tokens: int = 96,
    prompts: Sequence[Any] | None = None,
    **engine: Any,
) -> list[CheckedRounds]:
    """Run autoregressive, synchronous and asynchronous decoding, one request at a time, and check each."""
    runs: list[tuple[str, dict[str, Any]]] = [
        ("autoregressive", {}), ("sync_chain", {"k": k}), ("async_tree", {"k": k, "f": f}),
    ]  # fmt: skip
    found = []
    overhead_s = 0.0
    for strategy, fields in runs:
        with LLM(target, draft, strategy, progress=False, max_batch=1, **engine, **fields) as llm:
            params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
            trace = llm.run(list(prompts or demo.canned_prompts()[:3]), params).trace
        checked = check_trace(trace, strategy)
        if strategy == "autoregressive":
            overhead_s = RunTimes.of(trace).overhead_s
        if phases is not None:
            profile = phases.model_copy(update={"overhead_s": overhead_s})
            checked = replace(checked, from_phases_s=usual_round_s(_settled(trace), trace, profile)[1])
        found.append(checked)
    return found


def _kind(rows: Sequence[ReplayRow]) -> tuple[int, int]:
    """Verified rows and misses: rounds of one kind take the same steps."""
    return sum(row.verify_rows for row in rows), sum(row.hit is not True for row in rows)


def _settled(trace: Trace) -> list[RoundRecord]:
    """Whole rounds: the last ones of a text may draft more than they verify."""
    rounds = [one for one in trace.timed_rounds[FIRST_ROUNDS:] if one.sequences]
    most = max((len(s.draft_tokens) for one in rounds for s in one.sequences), default=0)
    return [one for one in rounds if all(len(s.draft_tokens) == most for s in one.sequences)]
