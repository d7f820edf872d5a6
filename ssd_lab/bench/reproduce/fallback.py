"""Which fallback at which batch size: jit, fast, and auto, which chooses (arXiv 2603.03251, Corollary 16)."""

from __future__ import annotations

import math
from typing import Literal

from ssd_lab.bench.reproduce.headline import K
from ssd_lab.bench.reproduce.recording import UNIFORM, Recordings
from ssd_lab.bench.reproduce.section import Claim, PaperSection
from ssd_lab.display.charts import Line, line_chart
from ssd_lab.display.tables import Table
from ssd_lab.simulate import AffineTime, HardwareProfile, OutcomeModel, Scenario, simulate
from ssd_lab.simulate.closed_form import critical_batch
from ssd_lab.simulate.published import PUBLISHED_70B

KEY = "fallback"
BATCHES = tuple(range(1, 33))
ROUNDS, LEAST_ROUNDS = 6000, 1000  # sequence rounds, rounds of the batch: one or the other, whichever is more
WITHIN = 0.03
PUBLISHED = {1: (250, 256), 2: (244, 214), 4: (237, 186), 8: (208, 160), 16: (170, 135)}  # fast, jit
Kind = Literal["jit", "fast", "auto"]
KINDS: tuple[Kind, ...] = ("jit", "fast", "auto")

LIGHT_DRAFT = HardwareProfile(
    name="light-draft",
    source="made up so that the crossing lies at a middle batch size: a draft step of 4 % of a verification",
    verify_s=AffineTime(base_s=1e-2, per_row_s=2e-5),
    draft_step_s=AffineTime(base_s=4e-4, per_row_s=2e-6),
    draft_tree_step_s=AffineTime(base_s=1e-3),
)


def section(recordings: Recordings) -> PaperSection:
    """Speeds of the three at every batch 1..32 on two machines, outcomes fitted to the recorded rounds at T = 0."""
    model, k = OutcomeModel.from_trace(recordings.trace(0.0)), min(recordings.k, K)
    tables, figures, claims, numbers = [], {}, [], {}
    for profile in (PUBLISHED_70B, LIGHT_DRAFT):
        speeds = {batch: _speeds(model, profile, k, batch) for batch in BATCHES}
        crossing = _closed_form_crossing(model, profile, k)
        numbers[profile.name] = {"closed_form_crossing": crossing, "tokens_per_second": speeds}
        shown = [batch for batch in (1, 2, 4, 8, 16, 32) if batch in speeds]
        with_paper = profile is PUBLISHED_70B
        columns = ("batch", *KINDS, *(("fast (paper)", "jit (paper)") if with_paper else ()))
        tables.append(Table(
            (f"{profile.name}: tokens/s per sequence, batch", *columns[1:]),
            tuple(
                (
                    str(batch),
                    *(f"{speeds[batch][kind] / batch:.1f}" for kind in KINDS),
                    *(map(str, PUBLISHED.get(batch, ("-", "-"))) if with_paper else ()),
                )
                for batch in shown
            ),
        ))  # fmt: skip
        worst = min(BATCHES, key=lambda b: _share(speeds[b]))
        claims.append(Claim(
            f"{profile.name}: auto is within {100 * WITHIN:.0f} % of the better of jit and fast at every batch 1..32",
            _share(speeds[worst]) >= 1 - WITHIN,
            f"worst at batch {worst}: {100 * (_share(speeds[worst]) - 1):+.2f} %; jit is better up to batch "
            f"{_last_jit(speeds)}, by Corollary 16 up to {crossing:.1f}",
        ))  # fmt: skip
        figures[f"fallback-{profile.name.replace('+', '-')}.svg"] = line_chart(
            [Line(kind, [(b, speeds[b][kind] / b) for b in BATCHES], marked=False, dashed=kind == "auto")
             for kind in KINDS]
            + ([Line("fast (paper)", [(b, f) for b, (f, _) in PUBLISHED.items()], colour=1),
                Line("jit (paper)", [(b, j) for b, (_, j) in PUBLISHED.items()], colour=0)] if with_paper else []),
            title=f"Fallbacks by batch size on {profile.name}", x_title="batch", y_title="tokens/s per sequence",
            log_x=True,
        )  # fmt: skip
    return PaperSection(
        key=KEY,
        title="Fallback crossover",
        paper="F = 1, tokens/s per sequence fast | jit, read off a chart (70B/1B): "
        + ", ".join(f"b={b} {fast}|{jit}" for b, (fast, jit) in PUBLISHED.items()) + "; they cross between 1 and 2.",
        ours=f"Outcomes fitted to the rounds recorded here at T = 0 (so hits and acceptance are not the paper's), "
        f"F = {UNIFORM}, k = {k}; a fast fallback is taken to guess nothing right. "
        "The second machine is made up, so that the crossing lies inside the range.",
        tables=tuple(tables),
        claims=tuple(claims),
        figures=figures,
        numbers=numbers,
    )  # fmt: skip


def _speeds(model: OutcomeModel, profile: HardwareProfile, k: int, batch: int) -> dict[str, float]:
    rounds = max(LEAST_ROUNDS, ROUNDS // batch)
    return {
        kind: simulate(
            model, profile, scenario=Scenario("async_tree", k, UNIFORM, kind, batch=batch, rounds=rounds)
        ).tokens_per_second
        for kind in KINDS
    }


def _closed_form_crossing(model: OutcomeModel, profile: HardwareProfile, k: int) -> float:
    verify = profile.verify_s.at(k + 1)
    return critical_batch(
        hit_rate=model.hit.hit_rate([UNIFORM] * (k + 1)),
        tokens_hit=model.hit.expected_tokens(k),
        draft_time=k * profile.draft_tree_step_s.at(UNIFORM * (k + 1)) / verify,
        slow_tokens=model.jit.expected_tokens(k),
        slow_time=k * profile.draft_step_s.at(1) / verify,
        fast_tokens=model.fast.expected_tokens(k),
        fast_time=profile.fast_fallback_s / verify,
    )


def _share(speeds: dict[str, float]) -> float:
    return speeds["auto"] / max(speeds["jit"], speeds["fast"])


def _last_jit(speeds: dict[int, dict[str, float]]) -> int | float:
    better = [batch for batch, own in speeds.items() if own["jit"] > own["fast"]]
    return max(better, default=0) if len(better) < len(speeds) else math.inf
