"""Numbers as they are sent to a page: six significant digits, more than any view shows."""

from __future__ import annotations

from collections.abc import Iterable


def short(value: float) -> float:
    """`value` to six significant digits."""
    return float(f"{value:.6g}")


def shorts(values: Iterable[float]) -> list[float]:
    """Each to six significant digits."""
    return [float(f"{value:.6g}") for value in values]


def seconds(value: float) -> float:
    """A time of the run's clock, to the microsecond."""
    return round(value, 6)
