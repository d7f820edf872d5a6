"""What watching costs: the same run with tracing and the progress bar, and without, in turns."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.live import Live
from ssd_lab.bench.repeat import RepeatResult
from ssd_lab.bench.session import Session
from ssd_lab.common.statistics import Estimate, paired_ratio, student_interval
from ssd_lab.models.loader import load_model


@dataclass(frozen=True)
class Seconds:
    """What one run took. cpu: processor time of this process, which others on the machine move less than the clock."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class WatchingCost:
    """Each run without (plain) and with (watched) a trace and a bar, pair by pair; all did the same work.

    ratio: time with over time without, the median over the pairs (1.02: 2 % more); cpu_ratio: of processor time.
    """

    plain: tuple[Seconds, ...]
    watched: tuple[Seconds, ...]
    num_tokens: int

    @property
    def ratio(self) -> Estimate:
        """Time with over time without."""
        return paired_ratio([each.wall for each in self.watched], [each.wall for each in self.plain])

    @property
    def cpu_ratio(self) -> Estimate:
        """Processor time with over processor time without; a draft in a process of its own is not in it."""
        return paired_ratio([each.cpu for each in self.watched], [each.cpu for each in self.plain])

    @property
    def speeds(self) -> tuple[Estimate, Estimate]:
        """Tokens per second, prefill included, without and with."""
        plain, watched = ([self.num_tokens / each.wall for each in way] for way in (self.plain, self.watched))
        return student_interval(plain), student_interval(watched)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        ratios = {"ratio": self.ratio.as_dict(), "cpu_ratio": self.cpu_ratio.as_dict()}
        return {**ratios, **dataclasses.asdict(self)}


def watching_cost(config: BenchConfig, pairs: int) -> WatchingCost:
    """Run the config's first data set `pairs` times each way, the order turned about from pair to pair.

    The bar is drawn on stderr as it is in a run. Raises what a run raises.
    """
    name = config.dataset_names[0]
    times: dict[bool, list[Seconds]] = {False: [], True: []}
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
                start = Seconds(time.perf_counter(), time.process_time())
                measured = _repeat(sessions[watched], name, live if watched else None, expected)
                times[watched].append(Seconds(time.perf_counter() - start.wall, time.process_time() - start.cpu))
    return WatchingCost(tuple(times[False]), tuple(times[True]), measured.num_output_tokens)


def _repeat(session: Session, dataset: str, live: Live | None, expected: int) -> RepeatResult:
    """One repeat with the same seeds each time, so that both ways do the same work."""
    if live is None:
        return session.repeat(dataset, 0)[1]
    live.begin(session.config.label, dataset, 0, expected)
    measured = session.repeat(dataset, 0, lambda _, totals: live.step(totals))[1]
    live.end(measured.totals)
    return measured
