"""Two runs beside each other: each figure's ratio with its interval, what else differs, and whether the texts do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ssd_lab.bench.figures import FIGURES, repeat_values
from ssd_lab.bench.result import BenchResult
from ssd_lab.common.statistics import Estimate, ratio
from ssd_lab.errors import ConfigError


@dataclass(frozen=True)
class ComparedFigure:
    """One figure of one data set in both runs. ratio: second over first (None for rates, whose values say enough).

    verdict: `better`, `worse`, `no difference` (the interval holds 1), or `unknown` without intervals.
    """

    dataset: str
    figure: str
    first: Estimate
    second: Estimate
    ratio: Estimate | None
    verdict: str | None


@dataclass(frozen=True)
class RunComparison:
    """Two runs. same_texts of the num_texts prompts that both have gave equal tokens; changes: what else differs."""

    first: str
    second: str
    figures: tuple[ComparedFigure, ...]
    same_texts: int
    num_texts: int
    changes: dict[str, tuple[Any, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


def compare_runs(
    first: BenchResult, second: BenchResult, names: tuple[str, str] = ("first", "second")
) -> RunComparison:
    """Second over first, for each data set that both have. Raises ConfigError if they have none in common."""
    shared = [name for name in first.datasets if name in second.datasets]
    if not shared:
        raise ConfigError(
            f"the runs have no data set in common: {', '.join(first.datasets)} and {', '.join(second.datasets)}"
        )
    texts = [(digest, second.digests[key]) for key, digest in first.digests.items() if key in second.digests]
    return RunComparison(
        *names,
        figures=tuple(figure for name in shared for figure in _figures(first, second, name)),
        same_texts=sum(ours == theirs for ours, theirs in texts),
        num_texts=len(texts),
        changes=_changes(first, second),
    )


def _figures(first: BenchResult, second: BenchResult, dataset: str) -> list[ComparedFigure]:
    left, right = first.datasets[dataset], second.datasets[dataset]
    compared = []
    for name, figure in FIGURES.items():
        if name not in left.estimates or name not in right.estimates:
            continue
        over = None
        if left.estimates[name].method == "student":
            numerators = repeat_values(right.repeats, name, right.num_gpus)
            denominators = repeat_values(left.repeats, name, left.num_gpus)
            over = ratio(numerators, denominators) if min(*numerators, *denominators) > 0 else None
        compared.append(
            ComparedFigure(
                dataset, name, left.estimates[name], right.estimates[name], over, _verdict(over, figure.better)
            )
        )
    return compared


def _verdict(over: Estimate | None, better: str | None) -> str | None:
    if over is None or better is None:
        return None
    if over.low is None or over.high is None:
        return "unknown"
    if over.low <= 1 <= over.high:
        return "no difference"
    return "better" if (over.mean > 1) == (better == "higher") else "worse"


def _changes(first: BenchResult, second: BenchResult) -> dict[str, tuple[Any, Any]]:
    left, right = _facts(first), _facts(second)
    names = sorted(left.keys() | right.keys())
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _facts(result: BenchResult) -> dict[str, Any]:
    """Configuration and surroundings as flat names; the time of day is no difference."""
    surroundings = {name: part for name, part in result.environment.items() if name != "time"}
    return flat(result.config.model_dump(mode="json")) | flat(surroundings)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """What is nested by one name each, its parts joined with dots."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, part in value.items():
        found |= flat(part, f"{prefix}.{name}" if prefix else str(name))
    return found
