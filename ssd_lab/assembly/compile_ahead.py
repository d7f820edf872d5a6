"""Kernels of a run's usual steps, compiled in threads while weights are read.

The steps run on tensors without memory, of decoders without weights: what they launch is handed to the compiler, many
kernels at once. It is kept on disk, with a note, so that only a machine that never saw them has anything to do. What no
step here needs is compiled when it is first launched, as ever.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ssd_lab.assembly.dry_run import GREEDY, LAYERS, SAMPLED_AND_FILTERED, DryRun
from ssd_lab.assembly.planning import MemoryPlanner
from ssd_lab.common.device_guard import current
from ssd_lab.execution.graphs import SMALLEST_CONTEXT
from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.compiling import compiling_together, is_compiled, note_compiled
from ssd_lab.models.assemble import without_weights

logger = logging.getLogger(__name__)

WAIT_S = 300.0  # longest that a run waits for the compiler before it goes on without
MOST_THREADS = 16


@contextmanager
def compiled_ahead(planner: MemoryPlanner) -> Iterator[CompileAhead]:
    """Begins, and is waited for in any case at the end: what is under way cannot be left behind."""
    ahead = CompileAhead(planner)
    try:
        yield ahead
    finally:
        ahead.close()


class CompileAhead:
    """The thread that runs the steps, and the compiler's threads. A fault is logged: the run compiles for itself."""

    def __init__(self, planner: MemoryPlanner) -> None:
        self._planner = planner
        self._is_wanted = True
        self._thread = threading.Thread(target=self._run, name="compile-ahead", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until everything is compiled, but no longer than WAIT_S."""
        self._thread.join(WAIT_S)

    def close(self) -> None:
        """Begin no further step and no further kernel, and wait for what is under way."""
        self._is_wanted = False
        self.wait()

    def _run(self) -> None:
        try:
            work = self._work()
            if is_compiled(work):
                return
            with (
                current(self._planner.device),
                _Pool(lambda: self._is_wanted) as pool,
                compiling_together(pool),
                torch.inference_mode(),
            ):
                self._steps()
            if self._is_wanted:
                note_compiled(work)
        except Exception as error:  # of any kind: nothing is lost by it but time
            logger.warning("kernels could not be compiled ahead: %s: %s", type(error).__name__, error)
            logger.debug("where", exc_info=True)

    def _work(self) -> str:
        planner, device = self._planner, self._planner.device
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return f"{gpu} {planner.config.kernels} {planner.shapes} {usual_runs(planner)}"

    def _steps(self) -> None:
        planner = self._planner
        kernels = choose_kernels(planner.device, planner.config.kernels)
        runs = usual_runs(planner)
        decoders = {
            role: without_weights(replace(shape.config, num_layers=LAYERS), kernels, shape.dtype)
            for role, shape in planner.shapes.items()
            if role in planner.roles and not (role == "draft" and planner.head is not None)
        }
        for run in runs:
            for role, decoder in decoders.items():
                runner = run.runner(decoder, planner.shapes[role].dtype)
                for step in run.steps(role):
                    if not self._is_wanted:
                        return
                    step(runner, run.contexts[-1])


class _Pool(ThreadPoolExecutor):
    """Threads that begin nothing once it is not wanted. Cancelled futures do not wake whoever waits for them."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        super().__init__(min(MOST_THREADS, os.cpu_count() or 1))
        self._is_wanted = is_wanted

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor.submit`; the future of what was not begun has CancelledError."""
        return super().submit(self._begun, partial(fn, *args, **kwargs))

    def _begun(self, task: Callable[[], Any]) -> Any:
        if not self._is_wanted():
            raise CancelledError
        return task()


def usual_runs(planner: MemoryPlanner) -> list[DryRun]:
    """Of one request, then of a full batch; greedy ones first, and short contexts: what most runs begin with."""
    longest = min(planner.cache.max_model_len, planner.config.max_model_len or planner.cache.max_model_len)
    largest = replace(planner.dry_run(longest), device=torch.device("meta"))
    short = SMALLEST_CONTEXT - planner.strategy.reserved_positions
    return [
        replace(largest, batch=batch, longest=length, settings=settings)
        for batch, length in dict.fromkeys([(1, short), (largest.batch, short), (largest.batch, largest.longest)])
        for settings in (GREEDY, SAMPLED_AND_FILTERED)
    ]
