"""How an inflated model is named where any model can be: `inflated:llama-8b:bundled-target`."""

from __future__ import annotations

from pathlib import Path

from ssd_lab import demo
from ssd_lab.errors import ModelLoadError
from ssd_lab.models.inflate.geometry import find_geometry

_PREFIX = "inflated:"
BUNDLED_PAIR = {"bundled-target": demo.TARGET, "bundled-draft": demo.DRAFT}


def split_inflated(source: str) -> tuple[str, str] | None:
    """Geometry and small model of `inflated:GEOMETRY:SOURCE`; None for any other name.

    Raises ModelLoadError for an unknown geometry or a missing part.
    """
    if not source.startswith(_PREFIX):
        return None
    geometry, _, small = source.removeprefix(_PREFIX).partition(":")
    if not small:
        raise ModelLoadError(
            f"{source!r} names no small model: write inflated:GEOMETRY:SOURCE, for example "
            "inflated:llama-8b:bundled-target"
        )
    return find_geometry(geometry).name, small


def inflated_source(geometry: str, small: str | Path) -> str:
    """The name that `split_inflated` takes apart."""
    return f"{_PREFIX}{geometry}:{small}"


def small_source(name: str | Path) -> str | Path:
    """Where a small model is: `bundled-target` and `bundled-draft` are those of the package, others stay."""
    return BUNDLED_PAIR.get(str(name), name)
