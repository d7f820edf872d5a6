"""Everything a draft worker is made from; travels to wherever the worker runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.engine.draft_worker import DraftPlan, DraftWorker
from ssd_lab.engine.runner import StepRunner
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model


@dataclass(frozen=True)
class WorkerSetup:
    """A draft worker: its model (loaded, or where to load it from), its share of memory, and its plan.

    num_blocks: the target's KV blocks; the draft's cache mirrors them and adds scratch blocks for `max_batch` trees.
    """

    model: LoadedModel | str
    dtype: str
    device: str
    num_blocks: int
    block_size: int
    max_batch: int
    threads: int | None
    plan: DraftPlan

    def make_worker(self) -> DraftWorker:
        """Load the model if need be, allocate the cache, and build the worker."""
        model = self.model
        if isinstance(model, str):
            model = load_model(model, dtype=self.dtype, device=self.device)
        scratch = self.max_batch * -(-self.plan.scratch_positions // self.block_size)
        device = torch.device(self.device)
        cache = PagedKVCache(model.config, self.num_blocks + scratch, self.block_size, model.dtype, device)
        return DraftWorker(StepRunner(model.decoder, cache, device), self.plan, first_scratch_block=self.num_blocks)
