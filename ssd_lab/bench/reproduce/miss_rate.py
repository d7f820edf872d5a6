"""Miss rate against fan-out: is it a power law? (arXiv 2603.03251, its figure of miss rate against F)"""

from __future__ import annotations

from typing import Any

from ssd_lab.bench.reproduce.recording import Recordings
from ssd_lab.bench.reproduce.section import Claim, PaperSection
from ssd_lab.display.charts import Line, line_chart
from ssd_lab.display.tables import Table
from ssd_lab.learning.fan_out_fit import HitLawFit, OutcomeSample, fit_hit_law
from ssd_lab.trace.outcomes import outcome_samples

KEY = "miss_rate"
WIDEST = 64
STRAIGHT = 0.95  # R squared of a line that deserves the name


def section(recordings: Recordings) -> PaperSection:
    """Fits for rounds that began with a hit and with the fallback, at each temperature."""
    rows, numbers = [], []
    lines: list[Line] = []
    for temperature, trace in recordings.traces.items():
        samples = outcome_samples(trace)
        for name, hit in (("hit", True), ("miss", False)):
            kind = [s for s in samples if s.began_with_hit is hit]
            fit, paper = (fit_hit_law(_ranks(kind), widest=WIDEST, scaled=scaled) for scaled in (True, False))
            if fit is None or paper is None:
                continue
            lines += _lines(fit, f"T={temperature:g}, {name}", len(lines) // 2)
            rows.append((
                f"{temperature:g}", name, str(fit.count), f"{fit.law.exponent:.2f}", f"{fit.law.scale:.2f}",
                f"{fit.r_squared:.3f}", f"{paper.law.exponent:.2f}", f"{paper.r_squared:.3f}",
                *(_exponent(kind, all_accepted) for all_accepted in (False, True)),
            ))  # fmt: skip
            numbers.append(_numbers(temperature, name, fit, paper))
    scaled = [entry["r_squared"] for entry in numbers]
    return PaperSection(
        key=KEY,
        title="Miss rate against fan-out",
        paper="The miss rate falls as a power of the fan-out, 1 - p_hit(F) = F^-r, in rounds that began with a hit and "
        "in rounds that began with the fallback.",
        ours="P(rank >= F) over recorded rounds, F = 1..64, fitted by weighted least squares in log-log coordinates: "
        "with a free scale (miss rate = scale * F^-r), and through 1 at F = 1 as in the paper. Points of fewer than 5 "
        "misses are left out. The last two columns give r and scale apart for rounds in which a token was refused and "
        "in which all k were kept.",
        tables=(
            Table(
                ("T", "began with", "rounds", "r", "scale", "R²", "r (scale 1)", "R² (scale 1)", "refused", "all kept"),
                tuple(rows),
            ),
        ),
        claims=(
            Claim(
                f"a power law with a free scale is straight (R² at least {STRAIGHT}) in every group",
                min(scaled) >= STRAIGHT if scaled else None,
                f"lowest R² {min(scaled):.3f}" if scaled else "too few misses to fit",
            ),
            Claim(
                "the paper's form, scale 1, fits as well",
                all(e["unscaled"]["r_squared"] >= STRAIGHT for e in numbers) if numbers else None,
                "it says that one candidate never hits, and here one candidate hits most of the time"
                if numbers
                else "too few misses to fit",
            ),
        ),
        figures={
            "miss-rate.svg": line_chart(
                lines,
                title="Miss rate against fan-out, with fitted power laws",
                x_title="candidates F",
                y_title="miss rate",
                log_x=True,
                log_y=True,
            )
        },
        numbers={"fits": numbers},
    )


def _ranks(samples: list[OutcomeSample]) -> list[int]:
    return [s.rank for s in samples if s.rank is not None]


def _exponent(samples: list[OutcomeSample], all_accepted: bool) -> str:
    fit = fit_hit_law(_ranks([s for s in samples if s.all_accepted is all_accepted]), widest=WIDEST)
    return "-" if fit is None else f"r {fit.law.exponent:.2f}, scale {fit.law.scale:.2f}"


def _lines(fit: HitLawFit, name: str, colour: int) -> list[Line]:
    measured = list(zip(fit.fan_outs, fit.miss_rates, strict=True))
    fitted = [(f, 1 - fit.law.hit_rate(f)) for f in fit.fan_outs]
    return [
        Line(name, measured, colour=colour),
        Line(f"  r = {fit.law.exponent:.2f}", fitted, dashed=True, marked=False, colour=colour),
    ]


def _numbers(temperature: float, name: str, fit: HitLawFit, paper: HitLawFit) -> dict[str, Any]:
    return {
        "temperature": temperature,
        "began_with": name,
        "rounds": fit.count,
        "exponent": fit.law.exponent,
        "scale": fit.law.scale,
        "r_squared": fit.r_squared,
        "unscaled": {"exponent": paper.law.exponent, "r_squared": paper.r_squared},
        "fan_outs": list(fit.fan_outs),
        "miss_rates": list(fit.miss_rates),
    }
