"""The check of some strategies on a pair of models: greedy and distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ssd_lab.check.cells import Cell, CellResult, OnWave, Setting
from ssd_lab.check.check_report import CheckReport
from ssd_lab.check.prompts import check_prompts
from ssd_lab.check.report import Report
from ssd_lab.check.subjects import BASELINE, Models, StrategyLike, Subject, resolve, takes_draft
from ssd_lab.common.progress import progress_bar
from ssd_lab.errors import ConfigError
from ssd_lab.models.loader import LoadedModel
from ssd_lab.strategies import registry

DEFAULT_STRATEGIES: tuple[StrategyLike, ...] = (
    "sync_chain",
    {"strategy": "async_tree", "fallback": "jit"},
    {"strategy": "async_tree", "fallback": "fast"},
    "sync_tree",
    {"strategy": "sync_tree", "tree": {"kind": "dynamic", "top_k": 4, "depth": 5, "num_nodes": 16}},
    "prompt_lookup",
    "suffix_tree",
    "cascade",
)
NUM_CONTEXTS = 40  # prompts of the distribution check; its contexts are these and every text that grows from them
SAMPLED_BATCH = 16


@dataclass(frozen=True)
class Extent:
    """How much to check."""

    num_prompts: int = 200
    max_tokens: int = 64
    batches: tuple[int, ...] = (1, 4, 16)
    temperatures: tuple[float, ...] = (0.7, 1.0)
    draws: int = 20_000

    @classmethod
    def quick(cls) -> Extent:
        """A quarter of an hour on a laptop; finds gross faults."""
        return cls(num_prompts=24, max_tokens=32, batches=(1, 4), temperatures=(1.0,), draws=3_000)


def check(
    strategies: Sequence[StrategyLike] = DEFAULT_STRATEGIES,
    *,
    target: LoadedModel | str | None = None,
    draft: LoadedModel | str | None = None,
    prompts: Sequence[Any] | None = None,
    extent: Extent | None = None,
    seed: int = 0,
    dtype: str = "auto",
    chat: bool | None = None,
    progress: bool = True,
    **engine: Any,
) -> CheckReport:
    """Compare strategies with autoregressive decoding; names, dictionaries with `strategy` and its fields, or configs.

    prompts: yours instead of the built-in ones. engine: further fields of EngineConfig. Ctrl-C returns what is known.
    """
    extent = extent or Extent()
    check_temperatures(extent.temperatures)
    configs = resolve(strategies)
    models = Models.load(target, draft, dtype=dtype, chat=chat, progress=progress, **engine)
    many = list(prompts) if prompts is not None else check_prompts(extent.num_prompts)
    setting = Setting(models, many, extent.max_tokens, many[:NUM_CONTEXTS], seed)
    cells = _plan(models.name, [Subject(*each) for each in configs.items()], extent)
    report = CheckReport(
        settings={
            "target": models.target.source,
            "draft": models.draft.source if models.draft is not None and takes_draft(configs) else None,
            "strategies": {label: config.model_dump(mode="json") for label, config in configs.items()},
            "num_prompts": len(many),
            "max_tokens": extent.max_tokens,
            "draws": extent.draws,
            "seed": seed,
            "dtype": str(models.target.dtype).removeprefix("torch."),
        },
        num_cells=len(cells),
    )
    run_cells(report, cells, setting.run, progress=progress)
    return report


def run_cells(
    report: Report, cells: Sequence[Cell], run: Callable[[Cell, OnWave], CellResult], *, progress: bool
) -> None:
    """Fill the report; Ctrl-C ends that early."""
    with progress_bar(len(cells), "check", "cell", enabled=progress) as bar:

        def show(key: str, drawn: int) -> None:
            bar.set_postfix_str(f"{key}, {drawn:,} tokens" if drawn else key)

        try:
            for cell in cells:
                show(cell.key, 0)
                report.cells.append((cell, run(cell, partial(show, cell.key))))
                bar.update(1)
        except KeyboardInterrupt:
            report.interrupted = True


def check_temperatures(temperatures: Sequence[float]) -> None:
    """Raise ConfigError for one at which nothing is drawn."""
    if any(temperature <= 0 for temperature in temperatures):
        raise ConfigError(
            f"temperatures {list(temperatures)} were given: a distribution needs temperatures over 0, and temperature "
            "0 is checked by itself"
        )


def _plan(models: str, subjects: list[Subject], extent: Extent) -> list[Cell]:
    """Temperature 0 first; there the baseline itself at other batch sizes is a check too."""
    labels = [subject.label for subject in subjects]
    baseline = [] if BASELINE in labels else [Subject(BASELINE, registry.config(BASELINE, {}))]
    greedy = [
        Cell(models, subject, 0.0, batch)
        for subject in [*baseline, *subjects]
        for batch in extent.batches
        if not (subject.label == BASELINE and batch == 1)
    ]
    return greedy + [
        Cell(models, subject, temperature, SAMPLED_BATCH, extent.draws)
        for subject in subjects
        for temperature in extent.temperatures
    ]
