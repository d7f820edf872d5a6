"""The memory plan of an engine: from the models' shapes before they are loaded, and again from a dry run after."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from ssd_lab.assembly.dry_run import DryRun
from ssd_lab.assembly.memory_plan import (
    MemoryPlan,
    MemoryRequest,
    plan_capped,
    plan_memory,
    plan_unchecked,
    with_graph_reserve,
)
from ssd_lab.assembly.memory_reader import CudaMemoryReader, HostMemoryReader, MemoryReader
from ssd_lab.assembly.model_demand import SPLIT_TOKENS, ModelDemand
from ssd_lab.common.device_guard import current
from ssd_lab.common.out_of_memory import explain_out_of_memory
from ssd_lab.config import EngineConfig
from ssd_lab.errors import ConfigError
from ssd_lab.execution.graphs import batch_bucket
from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.models.loader import LoadedModel
from ssd_lab.models.opened import OpenedModel
from ssd_lab.models.shape import ModelShape, shape_of
from ssd_lab.strategies.base import StrategyConfig

logger = logging.getLogger(__name__)

CACHE_SHARE = 0.25  # of a machine's free memory, for the target's KV blocks on a CPU, when num_blocks is not given


def reader_of(device: torch.device) -> MemoryReader:
    """What reads the memory of this device."""
    return CudaMemoryReader(device) if device.type == "cuda" else HostMemoryReader()


def plan_before_loading(
    target: LoadedModel | str,
    draft: LoadedModel | str | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
    reader: MemoryReader | None = None,
) -> MemoryPlan:
    """From names or loaded models: what of them is not loaded yet is only looked at.

    On a CUDA device what does not fit is refused as `plan_memory` says; on a CPU nothing is.
    """
    reader = reader or reader_of(device)
    models = _demands(target, draft, strategy, config, device)
    loaded = [_on_device(model, demand, device) for model, demand in zip((target, draft), models, strict=True)]
    free_bytes = (reader.free_bytes() or 0) + sum(loaded)
    request = _request(*models, strategy, config, device, max(0, free_bytes - _yet_to_come(draft, models[1])))
    return _noted(_plan(request, config, device), config)


def plan_loaded(
    target: LoadedModel,
    draft: LoadedModel | str | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
    reader: MemoryReader | None = None,
) -> MemoryPlan:
    """With the models in place: on a CUDA device the workspace is what the largest steps are seen to hold."""
    reader = reader or reader_of(device)
    if not target.decoder.kernels.captures:
        config = config.model_copy(update={"eager": True})
    plan = plan_before_loading(target, draft, strategy, config, device, reader)
    if device.type != "cuda":
        logger.debug("memory plan\n%s", plan)
        return plan
    request = measured(plan.request, target, draft, strategy, config, device, reader)
    uncut = _max_model_len(request.target, config)  # what fits is found anew
    return _noted(_plan(replace(request, max_model_len=uncut), config, device), config)


def measured(
    request: MemoryRequest,
    target: LoadedModel,
    draft: LoadedModel | str | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
    reader: MemoryReader,
) -> MemoryRequest:
    """The request with the models' workspaces by a dry run, and the graphs' share by these."""
    dry_run = DryRun(
        sizes=strategy.step_sizes,
        batch=request.padded_batch or request.max_batch,
        longest=request.max_model_len + request.lookahead,
        block_size=request.block_size,
        device=device,
        record=config.record,
        graphs=not config.eager,
    )
    change = "lower max_batch, or the strategy's k or fan-out"
    no_room = explain_out_of_memory("trying the target's largest steps", ConfigError, device=device, change=change)
    with current(device), no_room:
        seen = dry_run.target_peak(target, reader)
    request = replace(request, target=replace(request.target, measured_bytes=seen))
    if request.draft is not None and not request.draft.is_head and isinstance(draft, LoadedModel):
        no_room = explain_out_of_memory("trying the draft's largest steps", ConfigError, device=device, change=change)
        with current(device), no_room:
            seen = dry_run.draft_peak(draft, reader)
        request = replace(request, draft=replace(request.draft, measured_bytes=seen))
    return request if config.eager else with_graph_reserve(request)


def _plan(request: MemoryRequest, config: EngineConfig, device: torch.device) -> MemoryPlan:
    if device.type != "cuda":
        return plan_unchecked(request, config.num_blocks or _blocks_on_a_cpu(request))
    is_chosen = config.max_model_len is not None or config.num_blocks is not None
    return plan_memory(request) if is_chosen else plan_capped(request)


def _blocks_on_a_cpu(request: MemoryRequest) -> int:
    """Those of max_batch sequences of full length, or as many of the target's as fit a share of the free memory."""
    if not request.free_bytes:
        return request.wanted_blocks
    fitting = int(request.free_bytes * CACHE_SHARE / request.target.block_bytes(request.block_size))
    return max(2, min(request.wanted_blocks, fitting))


def _demands(
    target: LoadedModel | str,
    draft: LoadedModel | str | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
) -> tuple[ModelDemand, ModelDemand | None]:
    shape = shape_of(target, dtype=config.dtype, device=device)
    sizes, batch = strategy.step_sizes, _padded_batch(config, device)
    longest = _max_model_len(shape, config) + strategy.reserved_positions
    own = _demand(shape, batch * sizes.verify_rows, longest, device)
    head = strategy.head_config(target if isinstance(target, str) else str(target.source), shape.config)
    if not sizes.chain:
        return own, None
    if head is not None:
        drafting, num_weights = ModelShape(head.layers, shape.dtype), head.num_parameters
    elif draft is not None:
        drafting, num_weights = shape_of(draft, dtype=config.dtype, device=device), None
    else:
        return own, None
    small = _demand(drafting, batch * sizes.draft_rows, longest, device)
    kept = batch * sizes.kept_distributions
    scratch = sizes.scratch_positions
    return own, replace(small, scratch_positions=scratch, kept_distributions=kept, num_weights=num_weights)


def _demand(shape: ModelShape, rows: int, longest: int, device: torch.device) -> ModelDemand:
    splits = -(-longest // SPLIT_TOKENS) if device.type == "cuda" else 0
    return ModelDemand(shape.config, shape.dtype, rows=max(rows, LARGEST), logit_rows=rows, splits=splits)


def _request(
    target: ModelDemand,
    draft: ModelDemand | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
    free_bytes: int,
) -> MemoryRequest:
    request = MemoryRequest(
        free_bytes=free_bytes,
        target=target,
        draft=draft,
        block_size=config.block_size,
        max_model_len=_max_model_len(target, config),
        max_batch=config.max_batch,
        lookahead=strategy.reserved_positions,
        num_blocks=config.num_blocks,
        padded_batch=_padded_batch(config, device),
    )
    return request if config.eager or device.type != "cuda" else with_graph_reserve(request)


def _padded_batch(config: EngineConfig, device: torch.device) -> int:
    """Graphs are captured for a few batch sizes only, and smaller batches are padded to them."""
    return config.max_batch if config.eager or device.type != "cuda" else batch_bucket(config.max_batch)


def _max_model_len(model: ModelShape | ModelDemand, config: EngineConfig) -> int:
    return min(config.max_model_len or model.config.max_positions, model.config.max_positions)


def _noted(plan: MemoryPlan, config: EngineConfig) -> MemoryPlan:
    """With a note if more was asked for than the model's context."""
    context = plan.request.target.config.max_positions
    if config.max_model_len is None or config.max_model_len <= context:
        return plan
    note = f"max_model_len={config.max_model_len:,} was given, and the model's context is {context:,}: that is taken"
    return replace(plan, notes=(*plan.notes, note))


def _on_device(model: LoadedModel | str | None, demand: ModelDemand | None, device: torch.device) -> int:
    """Bytes of this model that are on the device already, and so no longer free. On a CPU nobody counts them back."""
    if demand is None or demand.is_head or not isinstance(model, LoadedModel) or device.type != "cuda":
        return 0
    return demand.weight_bytes + demand.table_bytes


def _yet_to_come(draft: LoadedModel | str | None, demand: ModelDemand | None) -> int:
    """Bytes that a draft's own process is going to take of the same memory."""
    if demand is None or not isinstance(draft, OpenedModel) or draft.is_read:
        return 0
    return demand.weight_bytes + demand.table_bytes
