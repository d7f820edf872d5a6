"""What `tune` hands back: the winner, ready to run, and the ranking it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssd_lab.display.tables import Column, Columns, Row, number
from ssd_lab.tune.candidates import Candidate

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN = 10


@dataclass(frozen=True)
class Scored:
    """A candidate with its tokens per second of the whole batch: predicted, and measured where it was confirmed. scale:
    what runs of its family, or of all, came to of their predictions.
    """

    candidate: Candidate
    predicted_tokens_per_second: float
    tokens_per_round: float
    hit_rate: float | None
    measured_tokens_per_second: float | None = None
    scale: float = 1.0

    @property
    def tokens_per_second(self) -> float:
        """As measured, else as predicted and scaled by what was measured of others."""
        measured = self.measured_tokens_per_second
        return self.predicted_tokens_per_second * self.scale if measured is None else measured

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        own = {name: value for name, value in vars(self).items() if name != "candidate"}
        own["scaled_tokens_per_second"] = self.predicted_tokens_per_second * self.scale
        return {"name": self.candidate.label, "strategy": self.candidate.strategy, **self.candidate.fields, **own}


@dataclass(frozen=True)
class Ratio:
    """A mean of ratios, and its 95 % interval (None: too few to tell)."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def range(self) -> str:
        """As a cell: the interval, or the mean of one pass."""
        known = self.low is not None and self.high is not None
        return f"{self.low:.2f} to {self.high:.2f}" if known else f"{self.mean:.2f}"

    def __str__(self) -> str:
        return f"{self.mean:.2f}, {'one pass' if self.low is None else self.range}"


@dataclass(frozen=True)
class GridCheck:
    """The winner beside every candidate of a full grid. share_of_best: its speed over the best one's, at most 1.
    ratios: each candidate's speed over the winner's.
    """

    share_of_best: float
    best: str
    ratios: dict[str, float]


_LEAD = "tokens/s, predicted and measured; over best: the 95 % interval of the ratio in the same passes"
_COLUMNS = Columns(
    (
        Column("candidate", lambda row: str(row["name"]), number=False),
        Column("predicted", number("scaled_tokens_per_second", "{:.1f}")),
        Column("measured", number("measured_tokens_per_second", "{:.1f}")),
        Column("over best", lambda row: row["over_best"]),
        Column("per round", number("tokens_per_round", "{:.2f}")),
        Column("hits", number("hit_rate", "{:.0%}")),
    )
)


@dataclass(frozen=True, repr=False)
class Tuning:
    """ranking: every candidate, those that were measured first, the fastest first. hardware: where it was tuned for.

    seconds: by part of the calibration. further: fields that go with the winner (models, temperature, batch). ratios:
    speeds of confirmed candidates over the winner's in the same passes, with their 95 % intervals (None: one pass).
    """

    ranking: list[Scored]
    hardware: str
    batch: int
    seconds: dict[str, float] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    grid: GridCheck | None = None
    ratios: dict[str, Ratio] = field(default_factory=dict)

    @property
    def within_noise(self) -> list[str]:
        """Confirmed candidates that the runs do not tell from the winner."""
        return [name for name, ratio in self.ratios.items() if ratio.high is None or ratio.high >= 1]

    @property
    def winner(self) -> Scored:
        """The fastest."""
        return self.ranking[0]

    @property
    def strategy(self) -> str:
        """The winner's strategy."""
        return self.winner.candidate.strategy

    @property
    def fields(self) -> dict[str, Any]:
        """The winner's fields: `ssd_lab.run(prompts, strategy=tuning.strategy, **tuning.fields)`."""
        return dict(self.winner.candidate.fields)

    @property
    def baseline(self) -> Scored | None:
        """Autoregressive decoding."""
        return next((one for one in self.ranking if one.candidate.strategy == "autoregressive"), None)

    @property
    def speedup(self) -> float | None:
        """Of the winner over autoregressive decoding; measured over measured, or predicted over predicted."""
        base, best = self.baseline, self.winner
        if base is None:
            return None
        if best.measured_tokens_per_second is not None and base.measured_tokens_per_second:
            return best.measured_tokens_per_second / base.measured_tokens_per_second
        return best.predicted_tokens_per_second / base.predicted_tokens_per_second

    @property
    def command(self) -> str:
        """The winner as a command line."""
        names = {"temperature": "--temperature", "max_batch": "--batch", "target": "--target", "draft": "--draft"}
        further = [word for name, option in names.items() if name in self.further
                   for word in (option, str(self.further[name]))]  # fmt: skip
        return self.winner.candidate.command('"..."', further)

    @property
    def call(self) -> str:
        """The winner as a Python call."""
        return self.winner.candidate.call(self.further)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "strategy": self.strategy,
            "fields": self.fields,
            "command": self.command,
            "call": self.call,
            "speedup": self.speedup,
            "hardware": self.hardware,
            "batch": self.batch,
            "seconds": self.seconds,
            "ranking": [one.as_dict() for one in self.ranking],
            "notes": self.notes,
            "within_noise": self.within_noise,
            "ratios": {name: vars(ratio) for name, ratio in self.ratios.items()},
            "grid": None if self.grid is None else vars(self.grid),
        }

    def rows(self, count: int | None = SHOWN) -> list[Row]:
        """One plain dictionary a candidate; autoregressive decoding is always among them."""
        shown = self.ranking[:count]
        base = self.baseline
        if base is not None and base not in shown:
            shown = [*shown, base]
        over = {name: ratio.range for name, ratio in self.ratios.items()}
        return [one.as_dict() | {"over_best": over.get(one.candidate.label)} for one in shown]

    def __str__(self) -> str:
        return "\n\n".join([_COLUMNS.table(self.rows(), lead=_LEAD).to_markdown(), "\n".join(self.lines())])

    __repr__ = __str__

    def __rich__(self) -> RenderableType:
        return _COLUMNS.table(self.rows(), lead=_LEAD, notes=self.lines()).to_rich()

    def table(self) -> RenderableType:
        """The ranking for a terminal."""
        return _COLUMNS.table(self.rows(), lead=_LEAD).to_rich()

    def _repr_html_(self) -> str:
        return _COLUMNS.table(self.rows(), lead=_LEAD, notes=self.lines()).to_html()

    def lines(self) -> list[str]:
        """What is said below the ranking: the winner, how to run it, how it was found."""
        gain = "" if self.speedup is None else f", {self.speedup:.2f}x autoregressive"
        lines = [f"best on {self.hardware}, batch {self.batch}: {self.winner.candidate.label}{gain}"]
        if self.within_noise:
            near = "; ".join(f"{name} ({self.ratios[name]})" for name in self.within_noise)
            lines.append(f"within noise of it, over its speed in the same passes: {near}")
        lines += [self.command, self.call]
        if self.grid is not None:
            lines.append(f"full grid: {self.grid.share_of_best:.1%} of the best, {self.grid.best}")
        if self.seconds:
            parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in self.seconds.items())
            lines.append(f"took {sum(self.seconds.values()):.1f} s: {parts}")
        return [*lines, *self.notes]
