"""Runs the cells of a sweep that a run table does not have yet: here one after the other, or on Ray.

The table is the only state. A cell is finished when its result is committed; a sweep that was killed goes on with the
others when it is started again, and a failed cell is tried again then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from ssd_lab.bench.cell import CellOutcome, Follow, run_cell
from ssd_lab.bench.config import BenchConfig, cell_key
from ssd_lab.bench.grid import Grid, expand, read_grid
from ssd_lab.bench.ray_backend import RayBackend
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.store import Failure, Failures, RunTable
from ssd_lab.common.progress import progress_bar
from ssd_lab.errors import ConfigError

__all__ = [
    "CellOutcome",
    "Failure",
    "Failures",
    "Follow",
    "Grid",
    "Workers",
    "expand",
    "read_grid",
    "run_cell",
    "run_sweep",
]

Workers = Literal["local", "ray"]


class Backend(Protocol):
    """Where cells run: takes configs, yields outcomes as they come, in any order."""

    def __call__(self, configs: Sequence[BenchConfig]) -> Iterable[CellOutcome]:
        """Run them all."""


def run_sweep(
    configs: Sequence[BenchConfig],
    table: RunTable,
    *,
    workers: Workers | Backend = "local",
    group: str | None = None,
    names: Sequence[str | None] | None = None,
    progress: bool = False,
    on_start: Callable[[BenchConfig], Follow] | None = None,
    on_cell: Callable[[CellOutcome], None] | None = None,
) -> list[BenchResult]:
    """Run every cell that the table lacks; returns the results of all cells that have one, in the configs' order.

    workers: `local`, `ray`, or a function that runs configs. names: what each config's run is called in the table.
    on_start: called before a cell is run here (Ray's workers are elsewhere); what it returns follows the cell.
    on_cell: called for each cell that was run, after it is in the table. A cell that raises is recorded with its error
    (`Failures(table).list()`) and the others go on; Ctrl-C ends the sweep, finished cells stay.
    Raises ConfigError for unknown workers, or names that do not match the configs in number.
    """
    if names is not None and len(names) != len(configs):
        raise ConfigError(f"{len(names)} names were given for {len(configs)} cells: give one for each")
    backend = _backend(workers, on_start)
    named = dict(zip(map(cell_key, configs), names or [None] * len(configs), strict=True))
    cells = {cell_key(config): config for config in configs}
    missing = [config for cell, config in cells.items() if table.by_cell(cell) is None]
    failures = Failures(table)
    failures.forget(*(config for config in cells.values() if config not in missing))  # killed between add and forget
    with progress_bar(len(cells), "sweep", "cell", enabled=progress) as bar:
        bar.update(len(cells) - len(missing))
        for outcome in backend(missing):
            if outcome.result is None:
                failures.record(outcome.config, outcome.error or "unknown", group)
            else:
                table.add(outcome.result, group=group, name=named[cell_key(outcome.config)])
                failures.forget(outcome.config)
            bar.update(1)
            if on_cell is not None:
                on_cell(outcome)
    return [result for cell in cells if (result := table.by_cell(cell)) is not None]


def _backend(workers: Workers | Backend, on_start: Callable[[BenchConfig], Follow] | None) -> Backend:
    if workers == "local":
        return lambda configs: (run_cell(config, on_start(config) if on_start else None) for config in configs)
    if workers == "ray":
        return RayBackend()
    if callable(workers):
        return workers
    raise ConfigError(f"workers {workers!r} are not known: local and ray are")
