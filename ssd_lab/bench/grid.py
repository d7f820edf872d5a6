"""Which cells a sweep has: every combination of a grid's values, or a list of changes to one base."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ssd_lab.bench.config import REFERENCE_NAMES, BenchConfig, cell_key
from ssd_lab.common.validation import validated
from ssd_lab.errors import ConfigError

Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]

_NAMES = REFERENCE_NAMES | {"k": "strategy_fields.k", "f": "strategy_fields.f"}
_KNOBS = "strategy_fields"


def read_grid(text: str) -> Grid:
    """A grid from JSON, or from the file of JSON that the text names. Raises ConfigError if it is neither."""
    source = text.strip()
    if not source.startswith(("{", "[")):
        path = Path(source).expanduser()
        if not path.is_file():
            raise ConfigError(f'a sweep is JSON or a file of JSON, and {text!r} is neither: give {{"batch": [1, 4]}}')
        source = path.read_text(encoding="utf-8")
    try:
        grid = json.loads(source)
    except json.JSONDecodeError as error:
        raise ConfigError(f"the sweep {text!r} is not JSON: {error}") from error
    if not isinstance(grid, dict | list):
        raise ConfigError(f"the sweep is {grid!r}: give lists of values by field, or a list of changes")
    return grid


def expand(base: BenchConfig, grid: Grid) -> list[BenchConfig]:
    """The cells of a sweep, each once, in the grid's order (its last field changes fastest).

    grid: `{"batch": [1, 4], "strategy_fields.k": [2, 6]}` for every combination, or a list of changes, one a cell:
    `[{"temp": 0, "b": 1}, {"temp": 1}]`. Names are the config's fields, dots reach inside; the reference's short names
    (`temp`, `b`, `k`, ...) work too. A knob goes to each strategy that has it: cells that differ only in knobs that
    their strategy lacks are one cell. Raises ConfigError for unknown fields and values that are not allowed.
    """
    changes = _combinations(grid) if isinstance(grid, Mapping) else list(grid)
    if not changes:
        raise ConfigError('the sweep is empty: give lists of values by field, such as {"batch": [1, 4]}')
    for number, change in enumerate(changes):
        if not isinstance(change, Mapping):
            raise ConfigError(f'change {number} of the sweep is {change!r}: give fields and values, as {{"batch": 4}}')
    knobs = {path[1] for change in changes for name in change if (path := _path(name))[0] == _KNOBS and len(path) > 1}
    cells = [_changed(base, change, knobs) for change in changes]
    _check_knobs(cells, knobs)
    return list({cell_key(cell): cell for cell in cells}.values())


def _combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    for name, values in grid.items():
        if isinstance(values, str | Mapping) or not isinstance(values, Sequence) or not values:
            raise ConfigError(f"the sweep's {name} is {values!r}: give a list of its values, such as [1, 4]")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())] if grid else []


def _path(name: str) -> list[str]:
    return _NAMES.get(name, name).split(".")


def _changed(base: BenchConfig, change: Mapping[str, Any], knobs: set[str]) -> BenchConfig:
    fields = base.model_dump()
    for name, value in change.items():
        *folders, last = _path(name)
        if (folders or [last])[0] not in fields:
            _unknown(name, fields)
        place = fields
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise ConfigError(f"the sweep's {name} reaches into {folder}, which is {place!r} and has no parts")
        place[last] = value
    known = _knobs_of(str(fields["strategy"]))
    if known is not None:
        fields[_KNOBS] = {name: value for name, value in fields[_KNOBS].items() if name in known or name not in knobs}
    return validated(BenchConfig, fields, name=f"the sweep's cell {dict(change)!r} is not allowed")


def _unknown(name: str, fields: Mapping[str, Any]) -> NoReturn:
    near = difflib.get_close_matches(name, [*_NAMES, *fields], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"the sweep's {name!r} is no field: {hint}The fields are {', '.join(fields)}; short for some of them are "
        f"{', '.join(_NAMES)}; a field of the strategy is {_KNOBS}.NAME"
    )


def _knobs_of(strategy: str) -> set[str] | None:
    from ssd_lab.strategies import registry

    found = registry.all().get(strategy)
    return None if found is None else set(found.model_fields)


def _check_knobs(cells: list[BenchConfig], knobs: set[str]) -> None:
    """A knob that no strategy of the sweep has is a slip, not something to leave out."""
    strategies = sorted({cell.strategy for cell in cells})
    known = [_knobs_of(name) for name in strategies]
    if None in known:  # an unknown strategy is refused in words when its cell is run
        return
    have = set().union(*(names for names in known if names is not None))
    for knob in sorted(knobs - have):
        raise ConfigError(
            f"the sweep's {_KNOBS}.{knob} is a knob of none of its strategies ({', '.join(strategies)}), which have: "
            f"{', '.join(sorted(have)) or 'none'}"
        )
