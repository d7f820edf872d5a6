"""Every strategy with every component, temperature and batch: the library behind `ssd-lab check --grid`.

Cell by cell, going on where an earlier run was interrupted.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd_lab.check.cells import Cell, CellResult, OnWave, RefusedError, Setting
from ssd_lab.check.checking import check_temperatures, run_cells
from ssd_lab.check.configurations import Configuration, Configurations, configurations
from ssd_lab.check.evidence import decision_tests
from ssd_lab.check.grid_report import GridReport
from ssd_lab.check.prompts import check_prompts
from ssd_lab.check.random_models import VOCAB, random_models, random_prompts
from ssd_lab.check.reference import Filters
from ssd_lab.check.store import CellStore
from ssd_lab.check.subjects import Models, StrategyLike
from ssd_lab.common.validation import validated
from ssd_lab.config import EngineConfig
from ssd_lab.display import environment
from ssd_lab.errors import ConfigError, SsdLabError
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.strategies.registry import listed

__all__ = ["Configuration", "Configurations", "GridExtent", "GridReport", "configurations", "run_grid"]

RANDOM, BUNDLED = "random models", "bundled models"
FULL_BATCH = 8
MIN_CELL_DRAWS = 300
NUM_CONTEXTS = 64
# as often none as one of the others, which are cut to a small vocabulary
_CUTS = (Filters(top_p=0.8), Filters(top_k=5), Filters(top_k=8, top_p=0.9, min_p=0.05), Filters(top_p=0.5))
FILTERS = tuple(own for cut in _CUTS for own in (Filters(), cut))


@dataclass(frozen=True)
class GridExtent:
    """How much to check. draws: tokens of a cell at batch 8, fewer in proportion at a smaller one, 300 at least.

    num_prompts, max_tokens: at temperature 0, of each pair of models; models of 0 prompts are left out.
    """

    temperatures: tuple[float, ...] = (0.7, 1.0)
    batches: tuple[int, ...] = (1, 8)
    draws: int = 2400
    random_prompts: int = 8
    bundled_prompts: int = 6
    max_tokens: int = 24

    def draws_at(self, batch: int) -> int:
        """Of one cell."""
        return max(min(self.draws, MIN_CELL_DRAWS), self.draws * min(batch, FULL_BATCH) // FULL_BATCH)


def run_grid(
    folder: Path,
    *,
    strategies: Sequence[StrategyLike] = (),
    extent: GridExtent | None = None,
    seed: int = 0,
    fresh: bool = False,
    progress: bool = True,
    command: str | None = None,
    **engine: Any,
) -> GridReport:
    """Run every cell that the folder does not hold yet, and write the report there.

    strategies: names, or names with fields that stay as given while the others are varied; none for all. engine:
    fields of EngineConfig. Raises ConfigError for a folder of another state of the code or other settings (fresh: begin
    anew). Ctrl-C ends it early; the next call goes on.
    """
    extent = extent or GridExtent()
    check_temperatures(extent.temperatures)
    validated(EngineConfig, engine, name="the grid makes its configurations itself and takes fields of the engine")
    grid = configurations(*_chosen(strategies))
    described = environment.describe()
    settings = {**asdict(extent), "seed": seed, "engine": {"threads": 1, "draft_link": "inline", **engine}}
    plain = json.loads(json.dumps(settings))  # as the file gives it back
    store = CellStore(
        folder, {"settings": plain, "versions": described["versions"], "git": described["git"]}, fresh=fresh
    )
    cells = plan(grid.accepted, extent)
    report = GridReport(settings, len(cells), grid=grid, environment=described, command=command)
    with tempfile.TemporaryDirectory() as made:
        asked = settings_by_models(Path(made), extent, seed, settings["engine"])

        def run(cell: Cell, on_wave: OnWave) -> CellResult:
            if cell.key not in store.results:
                store.add(run_cell(asked[cell.models], cell, on_wave))
            return store.results[cell.key]

        run_cells(report, cells, run, progress=progress)
    report.write(folder)
    return report


def plan(accepted: Sequence[Configuration], extent: GridExtent) -> list[Cell]:
    """All cells, those of one configuration after each other."""
    greedy = [(RANDOM, 0.0)] * (extent.random_prompts > 0) + [(BUNDLED, 0.0)] * (extent.bundled_prompts > 0)
    sampled = [(RANDOM, temperature) for temperature in extent.temperatures]
    return [
        Cell(models, configuration.subject, temperature, batch, extent.draws_at(batch))
        for configuration in accepted
        for models, temperature in [*greedy, *sampled]
        for batch in extent.batches
    ]


def run_cell(setting: Setting, cell: Cell, on_wave: OnWave = lambda drawn: None) -> CellResult:
    """The cell's result; errors that ssd_lab raises on purpose become part of it. KeyboardInterrupt goes through."""
    start = time.perf_counter()
    try:
        return setting.run(cell, on_wave)
    except RefusedError as error:
        return CellResult(cell.key, time.perf_counter() - start, refused=str(error))
    except SsdLabError as error:
        return CellResult(cell.key, time.perf_counter() - start, failed=f"{type(error).__name__}: {error}")


def settings_by_models(folder: Path, extent: GridExtent, seed: int, engine: dict[str, Any]) -> dict[str, Setting]:
    """What is asked of the grid's models, which are made here, by their names. folder: for what is made."""

    def asked(models: Models, prompts: Sequence[Any]) -> Setting:
        return Setting(
            models=models,
            prompts=prompts,
            max_tokens=extent.max_tokens,
            contexts=random_prompts(NUM_CONTEXTS, seed=seed),
            seed=seed,
            sampled_tokens=40,
            filters=FILTERS,
            apart=True,
            common=1.0,
            details=VOCAB,  # whole distributions, so that every decision can be tested
            test=decision_tests,
        )

    models = random_models(RANDOM, folder, engine, seed=seed)
    found = {RANDOM: asked(models, random_prompts(extent.random_prompts, seed=seed))}
    if extent.bundled_prompts:
        models = Models.load(None, None, name=BUNDLED, progress=False, **engine)
        found[BUNDLED] = asked(models, check_prompts(extent.bundled_prompts))
    return found


def _chosen(strategies: Sequence[StrategyLike]) -> tuple[dict[str, type[StrategyConfig]], dict[str, dict[str, Any]]]:
    """Classes by name (none asked for: all), and what is given of their fields. Raises UnknownStrategyError, and
    ConfigError for fields that the strategy does not take.
    """
    if not strategies:
        return registry.all(), {}
    configs = [registry.config(strategy, fields) for strategy, fields in listed(strategies)]
    given = [{name: config.model_dump(mode="json")[name] for name in config.model_fields_set} for config in configs]
    names = [config.strategy_name for config in configs]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"{twice[0]} was given {names.count(twice[0])} times: the grid takes a strategy once")
    return dict(zip(names, map(type, configs), strict=True)), dict(zip(names, given, strict=True))
