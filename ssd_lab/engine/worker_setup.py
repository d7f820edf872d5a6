"""Everything a draft worker is made from; travels to wherever the worker runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.engine.draft_plan import DraftPlan
from ssd_lab.engine.draft_worker import DraftWorker
from ssd_lab.engine.graphs import make_executor
from ssd_lab.engine.placement import Placement
from ssd_lab.engine.runner import StepRunner
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model


@dataclass(frozen=True)
class WorkerSetup:
    """A draft worker: its model (loaded, or where to load it from), its share of memory, and its plan.

    num_blocks: the target's KV blocks; the draft's cache mirrors them and adds scratch blocks for `max_batch` trees.
    longest_table: the most blocks that one sequence holds. eager: without CUDA graphs, also where there could be some.
    """

    model: LoadedModel | str
    dtype: str
    device: str
    num_blocks: int
    block_size: int
    max_batch: int
    threads: int | None
    plan: DraftPlan
    longest_table: int
    eager: bool = False

    def make_worker(self) -> DraftWorker:
        """Load the model if need be, allocate the cache, and build the worker."""
        model = self.model
        if isinstance(model, str):
            model = load_model(model, dtype=self.dtype, device=self.device)
        device = torch.device(self.device)
        executor = make_executor(device, eager=self.eager or not model.decoder.kernels.captures)
        per_row = -(-self.plan.scratch_positions // self.block_size)
        rows = executor.bucket(self.max_batch)
        scratch = [
            list(range(self.num_blocks + row * per_row, self.num_blocks + (row + 1) * per_row)) for row in range(rows)
        ]
        cache = PagedKVCache(model.config, self.num_blocks + rows * per_row, self.block_size, model.dtype, device)
        placement = Placement(
            device,
            max_rows=self.max_batch,
            width=self.longest_table + per_row,
            block_size=self.block_size,
            scratch=scratch,
            bucket=executor.bucket,
        )
        executor.keep_in_place(placement.buffers())
        return DraftWorker(StepRunner(model.decoder, cache, device, executor), self.plan, placement)
