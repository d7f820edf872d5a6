"""What `check` found: greedy runs, and the laws on every path."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ssd_lab.check.decisions import EMITTED
from ssd_lab.check.report import Report, filled
from ssd_lab.display.tables import Table

_GREEDY = {
    "strategy": "{strategy}",
    "batch": "{batch:,}",
    "sequences": "{num_sequences:,}",
    "tokens": "{num_tokens:,}",
    "differing tokens": "{num_differing_tokens}",
    "differing sequences": "{num_differing_sequences}",
}
_PATHS = {
    "strategy": "{strategy}",
    "path": "{path}",
    "law": "{short_law}",
    "T": "{temperature:g}",
    "draws": "{draws:,}",
    "off": "{off}",
    "p-value": "{p_value}",
    "finds from": "{finds}",
    "": "{verdict}",
}


@dataclass(frozen=True)
class PathResult:
    """One law on one path of one strategy at one temperature: its draws and the p-values of its tests (empty: too few
    draws).

    law: of the emitted token (the target's distribution), of the drafted one (the distribution given with it), or of
    acceptance. enough: has the path as many tokens as were asked for? deviation: share of draws in the wrong bin.
    impossible: what could not have come. finds_from: the smallest bias, as a share of the draws, that would be found
    with a chance of `SURELY`.
    """

    strategy: str
    temperature: float
    path: str
    law: str
    draws: int
    enough: bool
    deviation: float | None
    impossible: int
    p_values: dict[str, float] = field(default_factory=dict)
    finds_from: float | None = None


@dataclass
class CheckReport(Report):
    """Greedy and distribution results."""

    @property
    def paths(self) -> list[PathResult]:
        """What came of the cells at temperatures above 0."""
        return [
            PathResult(
                strategy=cell.subject.label,
                temperature=cell.temperature,
                path=tests.path,
                law=tests.event,
                draws=tests.draws,
                enough=tokens[tests.path] >= cell.draws,
                deviation=tests.deviation,
                impossible=tests.impossible,
                p_values=tests.p_values,
                finds_from=self.finds_from(tests),
            )
            for cell, result in self.cells
            for tokens in [{tests.path: tests.draws for tests in result.paths if tests.event == EMITTED}]
            for tests in result.paths
        ]

    @property
    def adjusted(self) -> list[float | None]:
        """For each law of a path its smallest p-value, corrected for all tests of the report (None: not tested)."""
        corrected = iter(self.tested)
        return [next(corrected).adjusted if path.p_values else None for path in self.paths]

    @property
    def rejected(self) -> list[PathResult]:
        """What does not follow its law."""
        return [path for path, p in zip(self.paths, self.adjusted, strict=True) if p is not None and p < self.alpha]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "same": self.same,
            "verdict": self.verdict(),
            "interrupted": self.interrupted,
            "alpha": self.alpha,
            "settings": self.settings,
            "greedy": [{**asdict(result), "same": result.same} for result in self.greedy],
            "paths": [
                {**asdict(path), "adjusted_p_value": p, "rejected": p is not None and p < self.alpha}
                for path, p in zip(self.paths, self.adjusted, strict=True)
            ],
        }

    def tables(self) -> list[Table]:
        """Greedy runs, and paths."""
        lead = f"Temperature > 0, p-values after Holm's correction, rejected below {self.alpha:g}"
        paths = [self._shown(path, p) for path, p in zip(self.paths, self.adjusted, strict=True)]
        return [
            filled(_GREEDY, list(map(asdict, self.greedy)), lead="Temperature 0, against autoregressive at batch 1"),
            filled(_PATHS, paths, names=3, lead=lead),
        ]

    def _shown(self, path: PathResult, p: float | None) -> dict[str, Any]:
        if p is None:
            verdict = "too few draws"
        elif p < self.alpha:
            verdict = "REJECTED"
        else:
            verdict = "ok" if path.enough else "ok, few"
        return {
            **asdict(path),
            "short_law": path.law.split()[0],
            "off": "-" if path.deviation is None else f"{path.deviation:.1%}",
            "p_value": "-" if p is None else f"{p:.3g}",
            "finds": "-" if path.finds_from is None else f"{path.finds_from:.1%}",
            "verdict": verdict,
        }
