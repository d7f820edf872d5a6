"""Saguaro sampling: hit rate, acceptance and simulated speed for C from 1 to 0, from recorded distributions."""

from __future__ import annotations

from dataclasses import replace

import torch

from ssd_lab.bench.reproduce.recording import UNIFORM, Recordings
from ssd_lab.bench.reproduce.section import Claim, PaperSection
from ssd_lab.display.charts import Line, line_chart
from ssd_lab.display.tables import Table
from ssd_lab.learning.lookahead import static_lookahead
from ssd_lab.simulate import PUBLISHED_70B
from ssd_lab.simulate.coefficient import RoundTimes, coefficient_curve, coefficient_point, suggest_c

KEY = "saguaro_c"
COEFFICIENTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.0)
PUBLISHED = ((0.617, 0.80), (0.637, 0.785), (0.72, 0.685), (0.742, 0.645), (0.80, 0.515), (0.805, 0.48))
TEMPERATURE = 1.0
NOTABLE = 0.0005
SLOW_FALLBACK = 2.0  # verifications, as of a draft that is slow beside its target


def section(recordings: Recordings) -> PaperSection:
    """Expectations at T = 1; speeds by Theorem 7 with the published machine's times."""
    p, q = recordings.distributions(TEMPERATURE)
    k = static_lookahead(PUBLISHED_70B.verify_s.at(1), PUBLISHED_70B.draft_tree_step_s.at(1), recordings.k)
    times = published_times(k)
    curve = coefficient_curve(p, q, fan_out=UNIFORM, k=k, times=times, coefficients=COEFFICIENTS)
    best = {
        (fan_out, fallback): _gain(p, q, fan_out, k, replace(times, fallback=fallback))
        for fan_out in (1, UNIFORM)
        for fallback in (times.fallback, SLOW_FALLBACK)
    }
    hits, acceptances = [point.hit_rate for point in curve], [point.acceptance for point in curve]
    return PaperSection(
        key=KEY,
        title="Saguaro sampling: C from 1 to 0",
        paper="As C falls from 1 to 0 the hit rate rises and acceptance falls; (hit, acceptance), read off a chart: "
        + " ".join(f"({hit:g}, {acceptance:g})" for hit, acceptance in PUBLISHED) + ".",
        ours=f"{len(p)} places of text sampled at T = {TEMPERATURE:g}, both models' whole distributions, F = {UNIFORM} "
        f"at every place, k = {k} (the steps that fit behind a verification). Acceptance and hit rate are expectations "
        "over draft, acceptance and recovery token, "
        "nothing is drawn. Speed: tokens per verification by Theorem 7, tree "
        f"{times.tree:.2f} and fallback {times.fallback:.2f} verifications ({PUBLISHED_70B.name}).",
        tables=(
            Table(
                ("C", "acceptance", "hit rate", "tokens/round", "speed"),
                tuple(
                    (f"{x.coefficient:g}", f"{x.acceptance:.3f}", f"{x.hit_rate:.3f}", f"{x.tokens:.2f}",
                     f"{x.speed:.3f}")
                    for x in curve
                ),
            ),
        ),
        claims=(
            Claim("the hit rate is higher at C = 0 than at C = 1", hits[-1] > hits[0],
                  f"{hits[0]:.3f} to {hits[-1]:.3f}, highest {max(hits):.3f}"),
            Claim("acceptance falls with C", acceptances == sorted(acceptances, reverse=True),
                  f"{acceptances[0]:.3f} to {acceptances[-1]:.3f}"),
            *(
                Claim("the best C beats C = 1 in simulated tokens per second at T = 1, "
                      f"F = {fan_out}, a fallback of {fallback:.2f} verifications",
                      gain >= NOTABLE, f"C = {c:.2f}: {100 * gain:+.2f} %; less than 0.05 % counts as nothing")
                for (fan_out, fallback), (c, gain) in best.items()
            ),
        ),
        figures={
            "saguaro-c.svg": line_chart(
                [Line("here", list(zip(hits, acceptances, strict=True))),
                 Line("paper (70B/1B)", PUBLISHED, dashed=True)],
                title="C from 1 to 0: acceptance against hit rate", x_title="hit rate", y_title="acceptance",
            ),
            "saguaro-c-speed.svg": line_chart(
                [Line("speed", [(x.coefficient, x.speed) for x in curve])],
                title="Simulated speed against C", x_title="C", y_title="tokens per verification time",
            ),
        },
        numbers={
            "curve": [vars(x) for x in curve], "best": [
                {"fan_out": fan_out, "fallback": fallback, "coefficient": c, "gain": gain}
                for (fan_out, fallback), (c, gain) in best.items()
            ], "times": vars(times), "places": len(p),
            "published": [list(point) for point in PUBLISHED],
        },
    )  # fmt: skip


def _gain(
    target_probs: torch.Tensor, draft_probs: torch.Tensor, fan_out: int, k: int, times: RoundTimes
) -> tuple[float, float]:
    """The best C, and how much faster than C = 1 it is."""
    best = suggest_c(target_probs, draft_probs, fan_out=fan_out, k=k, times=times)
    plain = coefficient_point(target_probs, draft_probs, fan_out, k, 1.0, times)
    return best.coefficient, best.speed / plain.speed - 1


def published_times(k: int) -> RoundTimes:
    """The published machine's tree and jit fallback in verifications of k + 1 rows."""
    verify = PUBLISHED_70B.verify_s.at(k + 1)
    return RoundTimes(
        tree=k * PUBLISHED_70B.draft_tree_step_s.at(1) / verify, fallback=k * PUBLISHED_70B.draft_step_s.at(1) / verify
    )
