"""The whole grid, cell by cell, going on where an earlier run was interrupted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssd_lab.api import LLM
from ssd_lab.check.grid.cell import Cell, CellResult, Models, Tokens, check_decisions, compare_greedy, run_cell
from ssd_lab.check.grid.configurations import Configuration, configurations
from ssd_lab.check.grid.random_models import random_models, random_prompts
from ssd_lab.check.grid.report import GridReport
from ssd_lab.check.grid.store import CellStore
from ssd_lab.check.prompts import check_prompts
from ssd_lab.check.subjects import BASELINE
from ssd_lab.common.progress import progress_bar
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.display import environment
from ssd_lab.errors import ConfigError, UnknownStrategyError
from ssd_lab.strategies import registry

RANDOM, BUNDLED = "random models", "bundled models"
FULL_BATCH = 8
MIN_CELL_DRAWS = 300


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
    strategies: Sequence[str] = (),
    extent: GridExtent | None = None,
    seed: int = 0,
    fresh: bool = False,
    progress: bool = True,
    command: str | None = None,
    **engine: Any,
) -> GridReport:
    """Run every cell that the folder does not hold yet, and write the report there.

    strategies: names, none for all. engine: fields of EngineConfig. Raises ConfigError for a folder of another state of
    the code or other settings (fresh: begin anew). Ctrl-C ends it early; the next call goes on.
    """
    extent = extent or GridExtent()
    _check(extent, engine)
    grid = configurations(_chosen(strategies))
    described = environment.describe()
    settings = {**asdict(extent), "seed": seed, "engine": {"threads": 1, "draft_link": "inline", **engine}}
    header = {"settings": _plain(settings), "versions": described["versions"], "git": described["git"]}
    store = CellStore(folder, header, fresh=fresh)
    cells = plan(grid.accepted, extent)
    report = GridReport(grid, [], settings, described, command=command, num_cells=len(cells))
    with tempfile.TemporaryDirectory() as made, progress_bar(len(cells), "grid", "cell", enabled=progress) as bar:
        runner = _Runner(Path(made), extent, seed, settings["engine"])
        try:
            for cell in cells:
                bar.set_postfix_str(cell.key)
                if cell.key not in store.results:
                    store.add(runner.run(cell))
                report.cells.append((cell, store.results[cell.key]))
                bar.update(1)
        except KeyboardInterrupt:
            report.interrupted = True
    report.write(folder)
    return report


def plan(accepted: Sequence[Configuration], extent: GridExtent) -> list[Cell]:
    """All cells, those of one configuration after each other."""
    greedy = [(RANDOM, 0.0)] * (extent.random_prompts > 0) + [(BUNDLED, 0.0)] * (extent.bundled_prompts > 0)
    sampled = [(RANDOM, temperature) for temperature in extent.temperatures]
    return [
        Cell(models, configuration, temperature, batch)
        for configuration in accepted
        for models, temperature in [*greedy, *sampled]
        for batch in extent.batches
    ]


class _Runner:
    """Models are made when a cell first needs them."""

    def __init__(self, folder: Path, extent: GridExtent, seed: int, engine: dict[str, Any]) -> None:
        self._folder, self._extent, self._seed, self._engine = folder, extent, seed, engine
        self._models: dict[str, Models] = {}
        self._expected: dict[str, Tokens] = {}
        self._params = SamplingParams(max_tokens=extent.max_tokens, ignore_eos=True)

    def run(self, cell: Cell) -> CellResult:
        """One cell."""
        models = self._models_of(cell.models)

        def work(llm: LLM) -> dict[str, Any]:
            if cell.temperature == 0:
                expected = self._expected_of(models)
                return compare_greedy(llm, self._prompts(cell.models), self._params, expected)
            draws = self._extent.draws_at(cell.batch)
            return check_decisions(llm, random_prompts(64, seed=self._seed), cell, draws=draws, seed=self._seed)

        return run_cell(models, cell, work)

    def _prompts(self, models: str) -> list[Any]:
        if models == BUNDLED:
            return list(check_prompts(self._extent.bundled_prompts))
        return list(random_prompts(self._extent.random_prompts, seed=self._seed))

    def _expected_of(self, models: Models) -> Tokens:
        """By autoregressive decoding at batch 1."""
        if models.name not in self._expected:
            with models.llm(Configuration(BASELINE, {}), 1) as llm:
                outputs = llm.generate(self._prompts(models.name), self._params)
            if any(output.finish_reason == "cancelled" for output in outputs):
                raise KeyboardInterrupt
            self._expected[models.name] = [output.token_ids for output in outputs]
        return self._expected[models.name]

    def _models_of(self, name: str) -> Models:
        if name not in self._models:
            self._models[name] = self._made() if name == RANDOM else self._bundled()
        return self._models[name]

    def _made(self) -> Models:
        from ssd_lab.assembly.build import resolve_device

        device = str(resolve_device(self._engine.get("device", "auto")))
        made = random_models(self._folder, seed=self._seed, device=device)
        return Models(RANDOM, made.target, made.draft, made.head, {**self._engine, "dtype": "float32"})

    def _bundled(self) -> Models:
        from ssd_lab.check.subjects import Models as Loaded

        loaded = Loaded.load(None, None, progress=False, **self._engine)
        if loaded.draft is None:
            raise TypeError("the bundled models come with a draft")
        return Models(BUNDLED, loaded.target, loaded.draft, None, loaded.engine)


def _check(extent: GridExtent, engine: dict[str, Any]) -> None:
    """Raise ConfigError for what would spoil every cell."""
    if any(temperature <= 0 for temperature in extent.temperatures):
        raise ConfigError(
            f"temperatures {list(extent.temperatures)} were given: a distribution needs temperatures over 0, and "
            "temperature 0 is checked by itself"
        )
    unknown = sorted(engine.keys() - EngineConfig.model_fields.keys())
    if unknown:
        raise ConfigError(
            f"unknown field {unknown[0]!r}: the grid makes its configurations itself and takes fields of the engine: "
            f"{', '.join(EngineConfig.model_fields)}"
        )


def _chosen(names: Sequence[str]) -> dict[str, Any]:
    known = registry.all()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownStrategyError(
            f"unknown strategy {unknown[0]!r}: the grid takes names, without fields; known are {', '.join(known)}"
        )
    return {name: known[name] for name in names} if names else dict(known)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return json.loads(json.dumps(settings))
