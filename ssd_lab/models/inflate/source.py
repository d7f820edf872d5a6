"""How an inflated model is named where any model can be: `inflated:llama-8b:bundled-target`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.checkpoint import Checkpoint, open_checkpoint
from ssd_lab.models.inflate.geometry import Geometry, find_geometry
from ssd_lab.models.inflate.plan import InflationPlan, plan_inflation

_PREFIX = "inflated:"


@dataclass(frozen=True)
class InflatedSource:
    """What an inflated model is made from. small: opened, its weights not read yet."""

    geometry: Geometry
    small: Checkpoint
    plan: InflationPlan


def open_inflated(geometry: str | Geometry, source: str | Path) -> InflatedSource:
    """geometry: one, or its name. source: as of `load_inflated`. Raises ModelLoadError if the small model does not
    fit.
    """
    shape = find_geometry(geometry) if isinstance(geometry, str) else geometry
    small = open_checkpoint(source)
    return InflatedSource(shape, small, plan_inflation(small.config, shape.config, shape.name))


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
