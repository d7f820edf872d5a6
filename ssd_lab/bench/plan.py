"""What one command will measure: a run, a file of runs, or a sweep's cells, all checked before the first starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ssd_lab.bench.config import BenchConfig, cell_key
from ssd_lab.bench.flags import Flags, first_name, make_flags, parse_flags
from ssd_lab.bench.grid import expand, read_grid
from ssd_lab.bench.meaning import to_config
from ssd_lab.bench.support import find_parts
from ssd_lab.errors import ConfigError
from ssd_lab.settings import Settings
from ssd_lab.strategies.importing import import_strategies

_OF_THE_COMMAND = ("sweep", "runs", "in_turns", "workers", "table", "json_", "wandb", "verbose", "debug", "import_")


@dataclass(frozen=True)
class PlannedRun:
    """A configuration and what its run is called."""

    config: BenchConfig
    name: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Plan:
    """The runs of one command, and the flags that say what happens beside the measuring."""

    flags: Flags
    runs: tuple[PlannedRun, ...]


def make_plan(arguments: Sequence[str], settings: Settings) -> Plan:
    """Read a command line and the files it names. Raises ConfigError that says what is wrong and where."""
    flags = parse_flags(arguments)
    import_strategies(flags.import_ or ())
    if flags.runs is not None and flags.sweep is not None:
        raise ConfigError("--runs and --sweep both say what to run: give one of them")
    if flags.in_turns and flags.runs is None:
        raise ConfigError("--in-turns lets the runs of a file take turns: give --runs FILE")
    if flags.sweep is not None and flags.given("verbose", "debug", "example"):
        raise ConfigError(f"{', '.join(flags.given('verbose', 'debug', 'example'))} shows one run: leave out --sweep")
    if flags.workers != "local" and flags.sweep is None:
        raise ConfigError(f"--workers {flags.workers} runs the cells of a sweep: give --sweep")
    if flags.runs is not None:
        return Plan(flags, tuple(_planned(each, settings) for each in _read_runs(flags.runs, flags)))
    base = _planned(flags, settings)
    return Plan(flags, (base,) if flags.sweep is None else tuple(_cells(base, flags.sweep)))


def check(plan: Plan) -> None:
    """Raise what the first impossible run would raise, before any run starts."""
    for run in plan.runs:
        find_parts(run.config)


def _planned(flags: Flags, settings: Settings) -> PlannedRun:
    return PlannedRun(to_config(flags, settings), flags.name, flags.group)


def _cells(base: PlannedRun, text: str) -> list[PlannedRun]:
    """A sweep's cells, numbered after the command's name; a change of a list may give its cell a `name`, as the
    reference's do.
    """
    grid: Any = read_grid(text)
    if isinstance(grid, dict):
        configs = expand(base.config, grid)
        return [PlannedRun(config, _numbered(base, number), base.group) for number, config in enumerate(configs)]
    cells: dict[str, PlannedRun] = {}
    for number, change in enumerate(grid):
        fields = dict(change) if isinstance(change, dict) else change
        named = fields.pop("name", None) if isinstance(fields, dict) else None
        config = expand(base.config, [fields])[0]
        cells.setdefault(cell_key(config), PlannedRun(config, named or _numbered(base, number), base.group))
    return list(cells.values())


def _numbered(base: PlannedRun, number: int) -> str | None:
    return None if base.name is None else f"{base.name}_{number}"


def _read_runs(file: Path, shared: Flags) -> list[Flags]:
    """The runs of a YAML file; flags of the command line hold where an entry does not say otherwise."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--runs {file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(document, list) or not document:
        raise ConfigError(f"--runs {file} is no list of runs: write one a line, such as - {{spec: true, k: 4}}")
    base = {field: getattr(shared, field) for field in shared.model_fields_set if field not in _OF_THE_COMMAND}
    found = []
    for number, entry in enumerate(document, 1):
        place = f"{file}, run {number}: "
        if not isinstance(entry, dict):
            raise ConfigError(f"{place}{entry!r} is no run: write flags and their values, such as {{spec: true, k: 4}}")
        own = make_flags(entry, place)
        outside = [first_name(field) for field in _OF_THE_COMMAND if field in own.model_fields_set]
        if outside:
            raise ConfigError(f"{place}{', '.join(outside)} is for the whole command: give it there")
        found.append(Flags(**{**base, **{field: getattr(own, field) for field in own.model_fields_set}}))
    return found
