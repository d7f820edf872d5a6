"""What a check found: tables for people, plain data for programs, one verdict."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssd_lab.check.distribution import PathResult
from ssd_lab.check.greedy import GreedyResult
from ssd_lab.check.statistics import holm

if TYPE_CHECKING:
    from rich.console import RenderableType

ALPHA = 0.01
_SHOWN_DIFFERENCES = 5


@dataclass
class CheckReport:
    """Greedy and distribution results. interrupted: Ctrl-C ended the check before its end."""

    greedy: list[GreedyResult] = field(default_factory=list)
    paths: list[PathResult] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    alpha: float = ALPHA
    interrupted: bool = False

    @property
    def adjusted(self) -> list[float | None]:
        """For each path its smallest p-value, corrected for all tests of the report (None: not tested)."""
        flat = [p for path in self.paths for p in path.p_values.values()]
        corrected = iter(holm(flat))
        own = [[next(corrected) for _ in path.p_values] for path in self.paths]
        return [min(values) if values else None for values in own]

    @property
    def rejected(self) -> list[PathResult]:
        """The paths that do not follow the target's distribution."""
        return [path for path, p in zip(self.paths, self.adjusted, strict=True) if p is not None and p < self.alpha]

    @property
    def different(self) -> list[GreedyResult]:
        """The greedy runs whose tokens differ."""
        return [result for result in self.greedy if not result.same]

    @property
    def same(self) -> bool:
        """Nothing was found."""
        return not self.different and not self.rejected

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        paths = [
            {**dataclasses.asdict(path), "adjusted_p_value": p, "rejected": p is not None and p < self.alpha}
            for path, p in zip(self.paths, self.adjusted, strict=True)
        ]
        greedy = [{**dataclasses.asdict(result), "same": result.same} for result in self.greedy]
        return {
            "same": self.same,
            "interrupted": self.interrupted,
            "alpha": self.alpha,
            "settings": self.settings,
            "greedy": greedy,
            "paths": paths,
        }

    def verdict(self) -> str:
        """One line."""
        if not self.greedy and not self.paths:
            return "nothing was checked"
        parts = []
        if self.greedy:
            tokens = sum(result.num_differing_tokens for result in self.greedy)
            parts.append(f"{tokens} differing tokens of {sum(r.num_tokens for r in self.greedy):,} at temperature 0")
        if self.paths:
            tested = sum(bool(path.p_values) for path in self.paths)
            parts.append(f"{len(self.rejected)} of {tested} paths rejected at p = {self.alpha:g}")
        lead = "SAME" if self.same else "NOT THE SAME"
        return f"{lead}{' so far (interrupted)' if self.interrupted else ''}: {'; '.join(parts)}"

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        shown: list[RenderableType] = []
        if self.greedy:
            shown += [self._greedy_table(), *self._differences(), Text()]
        if self.paths:
            shown += [self._path_table(), Text()]
        shown.append(Text(self.verdict(), style="bold green" if self.same else "bold red"))
        return Group(*shown)

    def _greedy_table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        table = Table(title="Temperature 0, against autoregressive at batch 1", title_justify="left", box=None)
        table.add_column("strategy")
        for name in ("batch", "sequences", "tokens", "differing tokens", "differing sequences"):
            table.add_column(name, justify="right")
        for result in self.greedy:
            style = "" if result.same else "red"
            numbers = (result.batch, result.num_sequences, result.num_tokens)
            table.add_row(
                Text(result.strategy),
                *(f"{number:,}" for number in numbers),
                str(result.num_differing_tokens),
                str(result.num_differing_sequences),
                style=style,
            )
        return table

    def _differences(self) -> list[RenderableType]:
        from rich.text import Text

        lines: list[RenderableType] = []
        for result in self.different:
            if result.degraded:
                lines.append(Text(f"{result.strategy}, batch {result.batch}: {result.degraded}", style="yellow"))
            for first in result.first_differences[:_SHOWN_DIFFERENCES]:
                gap = "one text ended" if first.logit_gap is None else f"logit gap {first.logit_gap:.2g}"
                lines.append(
                    Text(
                        f"{result.strategy}, batch {result.batch}, prompt {first.prompt}: token {first.position} is "
                        f"{first.got} instead of {first.expected}, {gap}",
                        style="yellow",
                    )
                )
        return lines

    def _path_table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        title = f"Temperature > 0, p-values after Holm's correction, rejected below {self.alpha:g}"
        table = Table(title=title, title_justify="left", box=None)
        for name in ("strategy", "temperature", "path"):
            table.add_column(name)
        for name in ("draws", "off target", "p-value", ""):
            table.add_column(name, justify="right")
        for path, p in zip(self.paths, self.adjusted, strict=True):
            verdict = (
                "too few draws" if p is None else "REJECTED" if p < self.alpha else "ok" if path.enough else "ok, few"
            )
            table.add_row(
                Text(path.strategy),
                f"{path.temperature:g}",
                path.path,
                f"{path.draws:,}",
                "-" if path.deviation is None else f"{path.deviation:.1%}",
                "-" if p is None else f"{p:.3g}",
                verdict,
                style="red" if verdict == "REJECTED" else "dim" if p is None else "",
            )
        return table
