"""What watching costs: the same run with tracing and the progress bar, and without, in turns."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.live import Live
from ssd_lab.bench.result import RepeatResult
from ssd_lab.bench.session import Session
from ssd_lab.bench.statistics import Estimate, paired_ratio, student_interval
from ssd_lab.models.loader import load_model


@dataclass(frozen=True)
class WatchingCost:
    """Seconds of each run without and with a trace and a bar; both did the same work.

    ratio: time with over time without, the median over the pairs (1.02: 2 % more).
    """

    plain_s: tuple[float, ...]
    watched_s: tuple[float, ...]
    num_tokens: int

    @property
    def ratio(self) -> Estimate:
        """Time with over time without."""
        return paired_ratio(self.watched_s, self.plain_s)

    @property
    def plain_tokens_per_second(self) -> Estimate:
        """Speed without trace and bar, prefill included."""
        return student_interval([self.num_tokens / seconds for seconds in self.plain_s])

    @property
    def watched_tokens_per_second(self) -> Estimate:
        """Speed with both."""
        return student_interval([self.num_tokens / seconds for seconds in self.watched_s])

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "ratio": self.ratio.as_dict(),
            "plain_s": list(self.plain_s),
            "watched_s": list(self.watched_s),
            "num_tokens": self.num_tokens,
        }


def watching_cost(config: BenchConfig, pairs: int) -> WatchingCost:
    """Run the config's first data set `pairs` times each way, the order turned about from pair to pair.

    The bar is drawn on stderr as it is in a run. Raises what a run raises.
    """
    name = config.dataset_names[0]
    times: dict[bool, list[float]] = {False: [], True: []}
    with ExitStack() as stack:
        sessions = {
            record: stack.enter_context(Session(config.model_copy(update={"record": record}), load_model))
            for record in times
        }
        expected = len(sessions[True].inputs[name]) * config.output_len
        live = stack.enter_context(Live(expected * pairs, progress=True, on_live=None))
        for session in sessions.values():
            session.warm_up()
        for pair in range(pairs):
            for watched in (True, False) if pair % 2 else (False, True):
                measured = _repeat(sessions[watched], name, live if watched else None, expected)
                times[watched].append(measured.wall_s)
    return WatchingCost(tuple(times[False]), tuple(times[True]), measured.num_output_tokens)


def _repeat(session: Session, dataset: str, live: Live | None, expected: int) -> RepeatResult:
    """One repeat with the same seeds each time, so that both ways do the same work."""
    if live is None:
        return session.repeat(dataset, 0)[1]
    live.begin(session.config.label, dataset, 0, expected)
    measured = session.repeat(dataset, 0, lambda _, totals: live.step(totals))[1]
    live.end(measured.totals)
    return measured
