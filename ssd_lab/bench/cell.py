"""One cell of a sweep: a configuration that is measured, whatever comes of it."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.live import OnLive
from ssd_lab.bench.measure import OnRepeat, run_benchmark
from ssd_lab.bench.result import BenchResult


@dataclass(frozen=True)
class CellOutcome:
    """A cell that was run: its result, or its error (type and message)."""

    config: BenchConfig
    result: BenchResult | None = None
    error: str | None = None


@dataclass(frozen=True)
class Follow:
    """What is called while a cell is measured, as `run_benchmark` calls it."""

    on_live: OnLive | None = None
    on_repeat: OnRepeat | None = None


def run_cell(config: BenchConfig, follow: Follow | None = None) -> CellOutcome:
    """Measure one cell; whatever it raises becomes its outcome, except Ctrl-C."""
    follow = follow or Follow()
    try:
        outcome = CellOutcome(config, run_benchmark(config, on_live=follow.on_live, on_repeat=follow.on_repeat))
    except Exception as error:  # of any kind: one cell that runs out of memory must not stop the others
        outcome = CellOutcome(config, error=f"{type(error).__name__}: {' '.join(str(error).split())}")
    if outcome.error is not None:
        gc.collect()  # the frames that an error passed through may hold the cell's models in a cycle
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return outcome
