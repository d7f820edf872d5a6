"""What every training run does: batches, steps, records, and checkpoints from which it goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ssd_lab.common.interruption import between_steps
from ssd_lab.training.optimiser import Optimiser, TrainingSchedule
from ssd_lab.training.prefetching import prefetched
from ssd_lab.training.run_checkpoint import RunCheckpoint

logger = logging.getLogger(__name__)
Batch = TypeVar("Batch")
RECORD_STEPS = 50  # optimiser steps from one record to the next


def run_steps(
    name: str,
    optimiser: Optimiser,
    schedule: TrainingSchedule,
    batches_from: Callable[[int], Iterator[Batch]],
    loss_of: Callable[[Batch, float], tuple[Tensor, Mapping[str, Tensor]]],
    *,
    checkpoint: RunCheckpoint | None = None,
    log_path: Path | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[dict[str, float]]:
    """Train until the schedule ends; returns the records of the run.

    batches_from: the batches after so many, always the same. loss_of: the loss of a batch at this progress (0 to 1),
    and what is recorded of it. Ctrl-C ends it after the step, with a checkpoint. An interrupted run goes on from its
    last checkpoint; where its length is given in steps, to the same bits as one that was not interrupted.
    """
    records = _resume(optimiser, schedule, checkpoint)
    per_step = optimiser.config.microbatches_per_step
    bar = tqdm(total=1000, desc=name, disable=not progress, mininterval=5)
    made = prefetched(batches_from(schedule.step_number * per_step))
    with closing(made) as batches, bar, between_steps() as interrupted:
        while schedule.progress < 1:
            begun = schedule.progress
            for _ in range(per_step):
                loss, measures = loss_of(next(batches), begun)
                (loss / per_step).backward()
            optimiser.step(schedule.advance())
            if schedule.step_number % RECORD_STEPS == 1 or schedule.progress >= 1:
                now = {key: float(value) for key, value in measures.items()}
                records.append({**schedule.record(), **now})
                write_log(log_path, records)
                bar.update(int(1000 * schedule.progress) - bar.n)
                bar.set_postfix({key: f"{value:.3f}" for key, value in now.items()})
                said = ", ".join(f"{key} {value:.3f}" for key, value in now.items())
                logger.info("%s, step %d: %s", name, schedule.step_number, said)
            if checkpoint is not None and checkpoint.due(schedule.step_number):
                checkpoint.save(_state(optimiser, schedule, records))
            on_step(schedule.step_number)
            if interrupted():
                if checkpoint is not None:
                    checkpoint.save(_state(optimiser, schedule, records))
                raise KeyboardInterrupt(f"interrupted after step {schedule.step_number}")
    if checkpoint is not None:
        checkpoint.save(_state(optimiser, schedule, records))
    return records


def compiled(function: Callable[..., Any], device: torch.device | str) -> Callable[..., Any]:
    """torch.compile on a GPU, where it pays for itself within a minute; elsewhere the function as it is."""
    return torch.compile(function, dynamic=False) if str(device).startswith("cuda") else function


def write_log(path: Path | None, records: list[dict[str, float]]) -> None:
    """Rewrite a loss curve, one JSON object a line."""
    if path is not None:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _state(optimiser: Optimiser, schedule: TrainingSchedule, records: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "model": optimiser.model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": schedule.step_number,
        "elapsed_s": schedule.elapsed_s,
        "records": records,
    }


def _resume(
    optimiser: Optimiser, schedule: TrainingSchedule, checkpoint: RunCheckpoint | None
) -> list[dict[str, float]]:
    """Take up what an earlier run left, if it did; returns its records."""
    saved = None if checkpoint is None else checkpoint.load(optimiser.parameters[0].device)
    if saved is None:
        return []
    optimiser.model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    schedule.resume(saved["step"], saved["elapsed_s"])
    logger.info("going on at step %d", schedule.step_number)
    return saved["records"]
