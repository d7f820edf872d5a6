"""What an engine takes of one device: by its models' shapes before they are loaded, by trying its steps after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ssd_lab.assembly.dry_run import DryRun
from ssd_lab.assembly.memory_plan import CacheRequest, MemoryPlan, plan_memory, plan_on_host
from ssd_lab.assembly.memory_reader import MemoryReader
from ssd_lab.common.device_guard import current
from ssd_lab.common.out_of_memory import explain_out_of_memory
from ssd_lab.config import EngineConfig
from ssd_lab.errors import ConfigError
from ssd_lab.execution.graphs import batch_bucket
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel
from ssd_lab.models.opened import ModelShape, OpenedModel, shape_of
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.step_sizes import StepSizes

GRAPH_WORKSPACES = 1.5  # kept for graphs, by experience: a pool as large as the workspace, and the outputs beside it
GRAPH_SHARE = 0.01  # of the free memory, for the graphs themselves
FLOAT32_BYTES = 4
LOGIT_COPIES = 4  # rows over the vocabulary that sampling holds at once: logits, filtered, sorted, probabilities
DISTRIBUTION_COPIES = 2  # of what a drafting phase hands out: its steps, and all of them joined

Model = LoadedModel | str


@dataclass(frozen=True)
class ModelMemory:
    """What a model takes, whatever it computes. table_bytes: cosines and sines of every position. block_bytes: one KV
    block in all layers.
    """

    weight_bytes: int
    table_bytes: int
    block_bytes: int

    @classmethod
    def of(cls, shape: ModelShape, block_size: int, num_weights: int | None = None) -> ModelMemory:
        """num_weights: of an EAGLE head, more than its layers'."""
        config, dtype = shape.config, shape.dtype
        return cls(
            weight_bytes=(num_weights or config.num_parameters) * dtype.itemsize,
            table_bytes=config.max_positions * config.head_dim * 2 * FLOAT32_BYTES,
            block_bytes=PagedKVCache.bytes_per_block(config, block_size, dtype),
        )

    @property
    def loaded_bytes(self) -> int:
        """On the device once the model is loaded."""
        return self.weight_bytes + self.table_bytes


@dataclass(frozen=True)
class EngineMemory:
    """What an engine takes of its device, by shapes alone.

    models: the target, and a draft model or EAGLE head, if there is one. sizes: of the strategy's steps, which compute
    `rows` sequences. graphs: will they be captured? head_bytes: what the steps of a head hold, which is loaded too late
    to try them. notes: what was decided for the caller.
    """

    models: dict[str, ModelMemory]
    cache: CacheRequest
    sizes: StepSizes
    rows: int
    graphs: bool
    head_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def lasting(self) -> dict[str, int]:
        """All that is there between steps, but KV blocks: name -> bytes."""
        scratch_blocks = self.rows * -(-self.sizes.scratch_positions // self.cache.block_size)
        scratch_bytes = scratch_blocks * self.models["draft"].block_bytes if "draft" in self.models else 0
        return {
            **{f"{role} weights": model.weight_bytes for role, model in self.models.items()},
            "position tables": sum(model.table_bytes for model in self.models.values()),
            "tree branches": scratch_bytes,
        }

    def with_steps(self, held_bytes: int, free_bytes: int) -> dict[str, int]:
        """The same with what the largest steps were seen to hold, and a reserve for the graphs that rounds capture."""
        workspace = held_bytes + self.head_bytes
        reserve = int(GRAPH_WORKSPACES * workspace + GRAPH_SHARE * free_bytes) if self.graphs else 0
        return {**self.lasting, "workspace": workspace, "graphs": reserve}


def memory_of(
    target: Model, draft: Model | None, strategy: StrategyConfig, config: EngineConfig, device: torch.device
) -> EngineMemory:
    """From names or loaded models: what is not loaded is only looked at. draft: None if the strategy uses none. Raises
    ModelLoadError as loading does.
    """
    can_capture = isinstance(target, str) or target.decoder.kernels.captures
    graphs = device.type == "cuda" and not config.eager and can_capture
    rows = batch_bucket(config.max_batch) if graphs else config.max_batch  # batches are padded to those captured
    shape, sizes, head_bytes = shape_of(target, dtype=config.dtype, device=device), strategy.step_sizes, 0
    models = {"target": ModelMemory.of(shape, config.block_size)}
    head = strategy.head_config(target if isinstance(target, str) else str(target.source), shape.config)
    if head is not None:
        models["draft"] = ModelMemory.of(ModelShape(head.layers, shape.dtype), config.block_size, head.num_parameters)
        distributions = LOGIT_COPIES * sizes.draft_rows + DISTRIBUTION_COPIES * sizes.kept_distributions
        head_bytes = rows * distributions * head.layers.vocab_size * FLOAT32_BYTES
    elif draft is not None:
        models["draft"] = ModelMemory.of(shape_of(draft, dtype=config.dtype, device=device), config.block_size)
    context, chosen = shape.config.max_positions, config.max_model_len or 0
    note = f"max_model_len={chosen:,} was given, and the model's context is {context:,}: that is taken"
    cache = _cache_request(sum(model.block_bytes for model in models.values()), context, strategy, config)
    return EngineMemory(models, cache, sizes, rows, graphs, head_bytes, (note,) if chosen > context else ())


def _cache_request(block_bytes: int, context: int, strategy: StrategyConfig, config: EngineConfig) -> CacheRequest:
    return CacheRequest(
        block_bytes=block_bytes,
        block_size=config.block_size,
        max_model_len=min(config.max_model_len or context, context),
        max_batch=config.max_batch,
        reserved=strategy.reserved_positions,
        num_blocks=config.num_blocks,
        may_cut=config.max_model_len is None and config.num_blocks is None,
    )


def plan_before_loading(
    target: Model,
    draft: Model | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
    reader: MemoryReader,
) -> MemoryPlan:
    """Of a CUDA device: weights and KV blocks alone. Raises as `plan_memory` where not even they fit."""
    memory = memory_of(target, draft, strategy, config, device)
    return plan_memory(memory.lasting, memory.cache, _free_bytes(memory, target, draft, device, reader))


def plan_loaded(
    target: LoadedModel,
    draft: LoadedModel | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
    reader: MemoryReader,
) -> MemoryPlan:
    """With the models in place. On a CUDA device the largest steps are tried for what they hold."""
    memory = memory_of(target, draft, strategy, config, device)
    free_bytes = _free_bytes(memory, target, draft, device, reader)
    if device.type != "cuda":
        plan = plan_on_host(memory.lasting, memory.cache, free_bytes)
    else:
        longest = plan_memory(memory.lasting, memory.cache, free_bytes).max_model_len
        held = held_by_steps(memory, target, draft, config, device, reader, longest)
        plan = plan_memory(memory.with_steps(held, free_bytes), memory.cache, free_bytes)
    return replace(plan, notes=(*plan.notes, *memory.notes))


def held_by_steps(
    memory: EngineMemory,
    target: LoadedModel,
    draft: LoadedModel | None,
    config: EngineConfig,
    device: torch.device,
    reader: MemoryReader,
    longest: int,
) -> int:
    """Bytes that the largest steps of target and draft hold, by a dry run. longest: tokens of the longest sequence."""
    dry_run = DryRun(
        sizes=memory.sizes,
        batch=memory.rows,
        longest=longest + memory.cache.reserved,
        block_size=config.block_size,
        device=device,
        record=config.record,
        graphs=memory.graphs,
    )
    peaks: list[tuple[str, LoadedModel, Callable[[LoadedModel, MemoryReader], int]]]
    peaks = [("target", target, dry_run.target_peak)]
    if draft is not None:
        peaks.append(("draft", draft, dry_run.draft_peak))
    held = 0
    for role, model, peak in peaks:
        no_room = explain_out_of_memory(
            f"trying the {role}'s largest steps",
            ConfigError,
            device=device,
            change="lower max_batch, or the strategy's k or fan-out",
        )
        with current(device), no_room:
            held += peak(model, reader)
    return held


def _free_bytes(
    memory: EngineMemory, target: Model, draft: Model | None, device: torch.device, reader: MemoryReader
) -> int:
    """What the engine has to share (0: unknown): on a CUDA device with what of its models is there already, on a CPU
    without what a draft's own process is going to take.
    """
    free = reader.free_bytes() or 0
    if device.type != "cuda":
        to_come = memory.models["draft"].loaded_bytes if isinstance(draft, OpenedModel) and not draft.is_read else 0
        return max(0, free - to_come)
    by_role = {"target": target, "draft": draft}
    return free + sum(memory.models[role].loaded_bytes for role in by_role if isinstance(by_role[role], LoadedModel))
