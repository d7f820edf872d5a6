"""One section of the report: what the paper says, what came out here, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of cells that are text already."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Claim:
    """A statement that the numbers bear out or not. holds: None where these numbers cannot tell."""

    text: str
    holds: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Section:
    """paper: its figure or statement. ours: how ours was got. numbers: all, ready for JSON. figures: SVG by name."""

    key: str
    title: str
    paper: str
    ours: str
    tables: tuple[Table, ...] = ()
    claims: tuple[Claim, ...] = ()
    figures: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


def percent(value: float | None) -> str:
    """`85.3 %`."""
    return "-" if value is None else f"{100 * value:.1f} %"


def even(budget: int, parts: int) -> tuple[int, ...]:
    """A uniform schedule of any budget: what does not divide goes to the front."""
    return tuple(budget // parts + (i < budget % parts) for i in range(parts))


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)
