"""One section of the report: what the paper says, what came out here, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ssd_lab.display.tables import Table


@dataclass(frozen=True)
class Claim:
    """A statement that the numbers bear out or not. holds: None where these numbers cannot tell."""

    text: str
    holds: bool | None
    detail: str = ""


@dataclass(frozen=True)
class PaperSection:
    """paper: its figure or statement. ours: how ours was got. numbers: all, ready for JSON. figures: SVG by name."""

    key: str
    title: str
    paper: str
    ours: str
    tables: tuple[Table, ...] = ()
    claims: tuple[Claim, ...] = ()
    figures: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, held: dict[str, Any]) -> PaperSection:
        """From what `as_dict` gave, also by way of JSON."""
        tables, claims = (Table(**one) for one in held["tables"]), (Claim(**one) for one in held["claims"])
        return cls(**{**held, "tables": tuple(tables), "claims": tuple(claims)})


def percent(value: float | None) -> str:
    """`85.3 %`."""
    return "-" if value is None else f"{100 * value:.1f} %"


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)
