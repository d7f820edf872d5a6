"""What watching costs: the same run with tracing and the progress bar, and without, in turns.

`python -m studies.costs.watching FLAGS` takes the flags of `ssd-lab bench`; `--repeats N` pairs are measured (10).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.live import Live
from ssd_lab.bench.plan import check, make_plan
from ssd_lab.bench.repeat import RepeatResult
from ssd_lab.bench.session import Session
from ssd_lab.bench.texts import estimate_text
from ssd_lab.common.statistics import Estimate, paired_ratio, student_interval
from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.models.loader import load_model
from ssd_lab.settings import settings

PAIRS = 10


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


def cost_table(cost: WatchingCost) -> Table:
    """What tracing and progress cost."""
    rows = [
        (f"total tokens/s {name}", estimate_text("total_tokens_per_second", speed))
        for name, speed in zip(("without", "with"), cost.speeds, strict=True)
    ]
    rows += [("cost in time", cost_text(cost.ratio)), ("cost in processor time", cost_text(cost.cpu_ratio))]
    return Table(("", ""), rows, lead=f"Tracing and progress bar, {len(cost.plain)} pairs of runs in turns")


def cost_text(ratio: Estimate) -> str:
    """`1.2 % [0.4, 2.0]`: the share of time that it adds."""
    text = f"{(ratio.mean - 1) * 100:.1f} %"
    if ratio.low is None or ratio.high is None:
        return text
    return f"{text} [{(ratio.low - 1) * 100:.1f}, {(ratio.high - 1) * 100:.1f}]"


def main(arguments: Sequence[str]) -> str:
    """Measure what the flags say; returns what is to be shown."""
    plan = make_plan(arguments, settings())
    if plan.flags.runs is not None or plan.flags.sweep is not None:
        raise ConfigError("the cost is measured of one run: leave out --runs and --sweep")
    check(plan)
    pairs = plan.flags.repeats if "repeats" in plan.flags.model_fields_set else PAIRS
    found = watching_cost(plan.runs[0].config, pairs)
    return json.dumps(found.as_dict(), indent=2) if plan.flags.json_ else cost_table(found).to_text()


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
