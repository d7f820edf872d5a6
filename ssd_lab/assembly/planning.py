"""What an engine takes of one device: by its models' shapes before they are loaded, by trying its steps after."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ssd_lab.assembly.dry_run import DryRun
from ssd_lab.assembly.memory_plan import CacheRequest, MemoryPlan, plan_memory, plan_on_host
from ssd_lab.assembly.memory_reader import MemoryReader
from ssd_lab.common.device_guard import current
from ssd_lab.common.out_of_memory import explain_out_of_memory
from ssd_lab.config import EngineConfig
from ssd_lab.engine.prefill_budget import PrefillBudget
from ssd_lab.errors import ConfigError
from ssd_lab.execution.graphs import batch_bucket
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel
from ssd_lab.models.opened import ModelShape, OpenedModel, shape_of
from ssd_lab.models.share import check_sizes, parameters_of_share, share_of
from ssd_lab.strategies.base import StrategyConfig

GRAPH_WORKSPACES = 1.5  # kept for graphs, by experience: a pool as large as the workspace, and the outputs beside it
GRAPH_SHARE = 0.01  # of the free memory, for the graphs themselves
FLOAT32_BYTES = 4
LOGIT_COPIES = 4  # rows over the vocabulary that sampling holds at once: logits, filtered, sorted, probabilities
ROLES = ("target", "draft")
DISTRIBUTION_COPIES = 2  # of what a drafting phase hands out: its steps, and all of them joined


@dataclass(frozen=True)
class MemoryPlanner:
    """Plans the memory of one engine. What of its models is given by name is only looked at, and raises ModelLoadError
    as loading it does. draft: None if the strategy uses none. ranks: of the target; the plan is that of the first.
    roles: those that lie on this device.
    """

    target: LoadedModel | str
    draft: LoadedModel | str | None
    strategy: StrategyConfig
    config: EngineConfig
    device: torch.device
    reader: MemoryReader
    ranks: int = 1
    roles: tuple[str, ...] = ROLES

    def check_ranks(self) -> None:
        """Raise ConfigError if the target cannot be shared by so many."""
        if self.ranks > 1:
            source = self.target if isinstance(self.target, str) else str(self.target.source)
            check_sizes(self._whole_target.config, self.ranks, source)

    def before_loading(self) -> MemoryPlan:
        """Of a CUDA device: weights and KV blocks alone. Raises as `plan_memory` where not even they fit."""
        return plan_memory(self.lasting, self.cache, self.free_bytes())

    def once_loaded(self) -> MemoryPlan:
        """With the models in place. On a CUDA device the largest steps are tried for what they hold."""
        free_bytes = self.free_bytes()
        if self.device.type != "cuda":
            plan = plan_on_host(self.lasting, self.cache, free_bytes)
        else:
            workspace = self.held_by_steps(plan_memory(self.lasting, self.cache, free_bytes).max_model_len)
            reserve = int(GRAPH_WORKSPACES * workspace + GRAPH_SHARE * free_bytes) if self.graphs else 0
            plan = plan_memory({**self.lasting, "workspace": workspace, "graphs": reserve}, self.cache, free_bytes)
        chosen, context = self.config.max_model_len or 0, self.shapes["target"].config.max_positions
        if chosen <= context:
            return plan
        note = f"max_model_len={chosen:,} was given, and the model's context is {context:,}: that is taken"
        return replace(plan, notes=(*plan.notes, note))

    @cached_property
    def shapes(self) -> dict[str, ModelShape]:
        """Of the target, and of a draft model or an EAGLE head, if there is one."""
        shapes = {"target": self._target_shape}
        if self.head is not None:
            shapes["draft"] = ModelShape(self.head.layers, shapes["target"].dtype)
        elif self.draft is not None:
            shapes["draft"] = self._shape(self.draft)
        return shapes

    @cached_property
    def head(self) -> Eagle3Config | None:
        """The EAGLE head that the strategy loads, if it does."""
        source = self.target if isinstance(self.target, str) else str(self.target.source)
        return self.strategy.head_config(source, self._whole_target.config)

    @property
    def _target_shape(self) -> ModelShape:
        """Of the target, or of a rank's part."""
        whole = self._whole_target
        is_part = self.ranks == 1 or (isinstance(self.target, LoadedModel) and self.target.decoder.group is not None)
        return whole if is_part else replace(whole, config=share_of(whole.config, self.ranks))

    @property
    def _whole_target(self) -> ModelShape:
        return self._shape(self.target)

    @property
    def lasting(self) -> dict[str, int]:
        """All that is there between steps, but KV blocks: name -> bytes."""
        scratch_blocks = self.rows * -(-self.strategy.step_sizes.scratch_positions // self.config.block_size)
        return {
            **{f"{role} weights": self._weight_bytes(role) for role in self._here},
            "position tables": sum(_table_bytes(self.shapes[role]) for role in self._here),
            "tree branches": scratch_blocks * self._block_bytes("draft") if "draft" in self._here else 0,
        }

    @property
    def cache(self) -> CacheRequest:
        """The KV blocks to ask for."""
        config, context = self.config, self.shapes["target"].config.max_positions
        return CacheRequest(
            block_bytes=sum(map(self._block_bytes, self._here)),
            block_size=config.block_size,
            max_model_len=min(config.max_model_len or context, context),
            max_batch=config.max_batch,
            reserved=self.strategy.reserved_positions,
            num_blocks=config.num_blocks,
            may_cut=config.max_model_len is None and config.num_blocks is None,
        )

    @property
    def graphs(self) -> bool:
        """Will steps be captured as CUDA graphs?"""
        can_be = isinstance(self.target, str) or self.target.decoder.kernels.captures
        return self.device.type == "cuda" and not self.config.eager and can_be

    @property
    def rows(self) -> int:
        """Sequences that a step computes for a full batch: those of a graph, if there are any."""
        return batch_bucket(self.config.max_batch) if self.graphs else self.config.max_batch

    def free_bytes(self) -> int:
        """What the engine has to share (0: unknown): on a CUDA device with what of its models is there already, on a
        CPU without what a draft's own process is going to take.
        """
        free, models = self.reader.free_bytes() or 0, {"target": self.target, "draft": self.draft}
        if self.device.type == "cuda":
            return free + sum(self._loaded_bytes(role) for role in self._here if isinstance(models[role], LoadedModel))
        comes = isinstance(self.draft, OpenedModel) and not self.draft.is_read
        return max(0, free - self._loaded_bytes("draft")) if comes else free

    def held_by_steps(self, longest: int) -> int:
        """Bytes that the largest steps of target and draft hold here, by a dry run. longest: tokens of the longest."""
        dry_run, held = self.dry_run(longest), self._head_bytes()
        for role, model in (("target", self.target), ("draft", self.draft)):
            if role not in self.roles or not isinstance(model, LoadedModel) or model.decoder.device != self.device:
                continue  # it is tried where it lies
            doing, change = f"trying the {role}'s largest steps", "lower max_batch, or the strategy's k or fan-out"
            with current(self.device), explain_out_of_memory(doing, ConfigError, device=self.device, change=change):
                held += dry_run.peak(role, model, self.reader)
        return held

    def dry_run(self, longest: int) -> DryRun:
        """The largest steps of texts of at most so many tokens."""
        return DryRun(
            sizes=self.strategy.step_sizes,
            batch=self.rows,
            longest=longest + self.strategy.reserved_positions,
            block_size=self.config.block_size,
            device=self.device,
            record=self.config.record,
            graphs=self.graphs,
            prompt_rows=PrefillBudget.of(self.config, self.device, self.strategy.lookahead).most,
        )

    @property
    def _here(self) -> list[str]:
        return [role for role in self.shapes if role in self.roles]

    def _shape(self, model: LoadedModel | str) -> ModelShape:
        return shape_of(model, dtype=self.config.dtype, device=self.device)

    def _head_bytes(self) -> int:
        """What the steps of an EAGLE head hold over the vocabulary, in float32: it is loaded too late to try them."""
        if self.head is None or "draft" not in self.roles:
            return 0
        sizes = self.strategy.step_sizes
        distributions = LOGIT_COPIES * sizes.draft_rows + DISTRIBUTION_COPIES * sizes.kept_distributions
        return self.rows * distributions * self.head.layers.vocab_size * FLOAT32_BYTES

    def _weight_bytes(self, role: str) -> int:
        shape = self.shapes[role]
        if role == "target" and self.ranks > 1:
            return parameters_of_share(shape.config, self.ranks) * shape.dtype.itemsize
        counted = self.head if role == "draft" and self.head is not None else shape.config
        return counted.num_parameters * shape.dtype.itemsize

    def _loaded_bytes(self, role: str) -> int:
        return self._weight_bytes(role) + _table_bytes(self.shapes[role])

    def _block_bytes(self, role: str) -> int:
        shape = self.shapes[role]
        return PagedKVCache.bytes_per_block(shape.config, self.config.block_size, shape.dtype)


def _table_bytes(shape: ModelShape) -> int:
    """Cosines and sines of every position."""
    return shape.config.max_positions * shape.config.head_dim * 2 * FLOAT32_BYTES
