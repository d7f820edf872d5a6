"""Everything a draft worker is made from; travels to wherever the worker runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ssd_lab.common.device_guard import door
from ssd_lab.drafting.drafter import Drafter, ModelDrafter
from ssd_lab.errors import ConfigError
from ssd_lab.execution.executor import Executor
from ssd_lab.execution.make_executor import make_executor
from ssd_lab.execution.observing import NOBODY, ExecutorObserver
from ssd_lab.hosts.places import Place
from ssd_lab.links.slots import SlotSizes
from ssd_lab.links.worker import Worker
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model, resolve_dtype
from ssd_lab.ranks.executor import RanksExecutor
from ssd_lab.ranks.rank_worker import Share
from ssd_lab.ranks.team import RankTeam
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.runner import StepRunner


class WorkerPlan(Protocol):
    """What a worker does each round: plain data, sent to wherever the worker is made."""

    @property
    def scratch_positions(self) -> int:
        """Cache positions behind a sequence's own blocks that the worker needs for each sequence."""
        ...

    @property
    def most_tokens(self) -> int:
        """The most draft tokens of a row: of a chain, or all nodes of a tree."""
        ...

    @property
    def prepares(self) -> bool:
        """Does the worker prepare for outcomes?"""
        ...

    def make_worker(self, drafter: Drafter) -> Worker:
        """The worker, over a draft that is loaded and a cache that is allocated."""
        ...


@dataclass(frozen=True)
class WorkerSetup:
    """A draft worker: its model (loaded, or where to load it from), its share of memory, and its plan.

    num_blocks: the target's KV blocks; the draft's cache mirrors them and adds scratch blocks for `max_batch` trees.
    longest_table: the most blocks that one sequence holds. target, num_tokens: what the draft is fitted to, see
    `Decoder.fitted_to`; None leaves it as it is. eager: without CUDA graphs, also where there could be some. ranks:
    places that share the draft's weights, the first of which is this one (none: it has all). limit_s: for these to
    start, and for each other in a step.
    """

    model: LoadedModel | str
    dtype: str
    device: str
    num_blocks: int
    block_size: int
    max_batch: int
    threads: int | None
    plan: WorkerPlan
    longest_table: int
    target: ModelConfig | None = None
    num_tokens: int | None = None
    eager: bool = False
    observer: ExecutorObserver = NOBODY
    debug_memory: bool = False
    ranks: tuple[Place, ...] = ()
    limit_s: float = 120.0

    @property
    def source(self) -> str | None:
        """What the model is loaded by, None if it is only here."""
        if isinstance(self.model, str) or self.model.source is None:
            return self.model if isinstance(self.model, str) else None
        return str(self.model.source)

    @property
    def slots(self) -> SlotSizes:
        """Rounds of a full batch. Without a target the vocabulary is the draft's own matter, and distributions have no
        place.
        """
        return SlotSizes(self.max_batch, self.plan.most_tokens, 0 if self.target is None else self.target.vocab_size)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which loads the model by its name, and as it was loaded here: `dtype` may say auto where
        the caller chose.
        """
        dtype = self.dtype if isinstance(self.model, str) else str(self.model.dtype).removeprefix("torch.")
        return {**vars(self), "model": self.source, "dtype": dtype, "observer": NOBODY}

    @door(lambda setup: torch.device(setup.device))
    def make_worker(self) -> Worker:
        """Load the model if need be, allocate the cache, and build the worker."""
        model, team = self.model, None
        if self.ranks:
            team = self._team()
            model = team.model
        elif isinstance(model, str):
            model = load_model(model, dtype=self.dtype, device=self.device)
        decoder = model.decoder
        if self._fit is not None and team is None:
            decoder = decoder.fitted_to(*self._fit)
        device = torch.device(self.device)
        memory = WorkerMemory.allocate(
            decoder.config,
            model.dtype,
            device,
            num_blocks=self.num_blocks,
            block_size=self.block_size,
            max_batch=self.max_batch,
            longest_table=self.longest_table,
            scratch_positions=self.plan.scratch_positions,
            eager=self.eager or not decoder.kernels.captures,
            observer=self.observer,
            debug_memory=self.debug_memory,
        )
        executor = memory.executor
        if team is not None:
            team.allocate(memory.cache.num_blocks, self.block_size, eager=self.eager, debug_memory=self.debug_memory)
            executor = RanksExecutor(executor, team)
        runner = StepRunner(decoder, memory.cache, device, executor)
        return self.plan.make_worker(ModelDrafter(runner, memory.placement))

    @property
    def _fit(self) -> tuple[ModelConfig, int] | None:
        return None if self.target is None else (self.target, self.num_tokens or self.target.vocab_size)

    def _team(self) -> RankTeam:
        """The draft's ranks, which end with this process."""
        if self.source is None:
            raise ConfigError("a draft over several devices is loaded by name on each: give its folder or hub id")
        share = Share(
            source=self.source,
            dtype=str(resolve_dtype(self.dtype, self.device)).removeprefix("torch."),
            device=self.device,
            bitwise=True,
            kernels="auto",
            role="draft",
            fit=self._fit,
        )
        return RankTeam(share, self.ranks, threads=self.threads, limit_s=self.limit_s, progress=False)


@dataclass(frozen=True)
class WorkerMemory:
    """What a draft of some shape works in: its KV cache, the place of its rows, and what executes its phases."""

    cache: PagedKVCache
    placement: Placement
    executor: Executor

    @classmethod
    def allocate(
        cls,
        shape: ModelConfig,
        dtype: torch.dtype,
        device: torch.device,
        *,
        num_blocks: int,
        block_size: int,
        max_batch: int,
        longest_table: int,
        scratch_positions: int,
        eager: bool,
        observer: ExecutorObserver,
        debug_memory: bool,
    ) -> WorkerMemory:
        """Blocks that mirror the target's `num_blocks`, and behind them each row's scratch blocks for
        `scratch_positions`.
        """
        executor = make_executor(device, eager=eager, observer=observer, debug_memory=debug_memory)
        per_row = -(-scratch_positions // block_size)
        rows = executor.bucket(max_batch)
        scratch = [list(range(num_blocks + row * per_row, num_blocks + (row + 1) * per_row)) for row in range(rows)]
        cache = PagedKVCache(shape, num_blocks + rows * per_row, block_size, dtype, device)
        placement = Placement(
            device,
            max_rows=max_batch,
            width=longest_table + per_row,
            block_size=block_size,
            scratch=scratch,
            bucket=executor.bucket,
        )
        executor.keep_in_place(placement.buffers())
        return cls(cache, placement, executor)
