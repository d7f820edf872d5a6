"""Simulated speed by temperature: synchronous, asynchronous with a uniform and with better schedules."""

from __future__ import annotations

from itertools import pairwise

from ssd_lab.bench.reproduce.headline import K
from ssd_lab.bench.reproduce.recording import UNIFORM, Recordings, with_hits
from ssd_lab.bench.reproduce.schedules import schedules
from ssd_lab.bench.reproduce.section import Claim, PaperSection
from ssd_lab.display.charts import Line, line_chart
from ssd_lab.display.tables import Table
from ssd_lab.simulate import PUBLISHED_70B, OutcomeModel, Scenario, simulate
from ssd_lab.strategies.fanout import Adaptive

KEY = "temperature"
PUBLISHED = {0.0: (161, 246, 248), 0.3: (150, 222, 226), 0.7: (138, 195, 200), 1.0: (112, 137, 143)}
ROUNDS = 8000
COLUMNS = ("sync", "uniform", "geometric", "by lengths")


def section(recordings: Recordings) -> PaperSection:
    """The recorded rounds on the published machine's clock."""
    k = min(recordings.k, K)
    rows, numbers = [], []
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in COLUMNS}
    ordered: list[dict[str, float]] = []
    for temperature, trace in recordings.traces.items():
        budget = UNIFORM * (k + 1)
        contenders = schedules(trace, budget, k) | {"by lengths": Adaptive(budget=budget, by_confidence=False)}
        model = OutcomeModel.from_trace(with_hits(trace, (UNIFORM,) * (recordings.k + 1)))
        scenarios = {"sync": Scenario("sync_chain", k, rounds=ROUNDS)} | {
            name: Scenario("async_tree", k, contenders[name], rounds=ROUNDS) for name in COLUMNS[1:]
        }
        speeds = {name: simulate(model, scenario=own).tokens_per_second for name, own in scenarios.items()}
        ordered.append(speeds)
        for name, speed in speeds.items():
            curves[name].append((temperature, speed))
        published = PUBLISHED.get(temperature)
        rows.append((
            f"{temperature:g}", *(f"{speeds[name]:.0f}" for name in COLUMNS),
            "-" if published is None else " / ".join(map(str, published)),
        ))  # fmt: skip
        numbers.append({"temperature": temperature, "tokens_per_second": speeds, "published": published})
    return PaperSection(
        key=KEY,
        title="Speed by temperature",
        paper="70B/1B, tokens/s sync | uniform | geometric, read off a chart: "
        + ", ".join(f"T={t:g} {a}|{b}|{c}" for t, (a, b, c) in PUBLISHED.items()) + ".",
        ours=f"Outcomes fitted to the rounds recorded here, drawn on the clock of {PUBLISHED_70B.name}, batch 1, "
        f"k = {k}, budget {UNIFORM * (k + 1)}, jit.",
        tables=(Table(("T", *COLUMNS, "paper: sync / uniform / geometric"), tuple(rows)),),
        claims=(
            Claim("asynchronous is faster than synchronous at every temperature",
                  all(own["uniform"] > own["sync"] for own in ordered)),
            Claim("speed falls with temperature",
                  all(a["uniform"] >= b["uniform"] for a, b in pairwise(ordered))),
            Claim("geometric and adaptive are at least as fast as uniform",
                  all(min(own["geometric"], own["by lengths"]) >= 0.99 * own["uniform"] for own in ordered),
                  "to one percent, the drawing's own spread"),
        ),
        figures={
            "temperature.svg": line_chart(
                [Line(name, points) for name, points in curves.items()]
                + [Line(f"{name} (paper)", [(t, own[i]) for t, own in PUBLISHED.items()], dashed=True, colour=i)
                   for i, name in enumerate(COLUMNS[:3])],
                title="Simulated tokens/s by temperature", x_title="temperature", y_title="tokens/s",
            )
        },
        numbers={"speeds": numbers},
    )  # fmt: skip
