"""Put an engine together: models, cache, threads, strategy."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

import ssd_lab
from ssd_lab.config import EngineConfig
from ssd_lab.engine.block_manager import BlockManager
from ssd_lab.engine.engine import Engine, EngineLimits
from ssd_lab.engine.graphs import make_executor
from ssd_lab.engine.resources import Resources
from ssd_lab.engine.runner import StepRunner
from ssd_lab.errors import ConfigError
from ssd_lab.models.incremental import IncrementalDecoder
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel
from ssd_lab.strategies.base import StrategyConfig

CACHE_SHARE = 0.25  # of the memory that is free, for KV blocks, when num_blocks is not given


def resolve_device(name: str) -> torch.device:
    """The device meant by `auto`, `cpu`, `cuda` or `cuda:N`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is not known: give auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r} was asked for and {torch.cuda.device_count()} CUDA devices are here: give auto or cpu"
        )
    return device


def share_threads(
    config: EngineConfig, strategy: StrategyConfig, device: torch.device
) -> tuple[int | None, int | None]:
    """CPU threads for the target and for a draft that works beside it; None leaves the number alone."""
    if device.type != "cpu":
        return config.threads, None
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(allowed, torch.get_num_threads())  # which knows OMP_NUM_THREADS, and what the caller set
    draft = max(1, cores // 4) if strategy.overlaps else None
    target = config.threads or max(1, cores - (draft or 0))
    return target, draft


def build_engine(
    target: LoadedModel, draft: LoadedModel | str | None, strategy: StrategyConfig, config: EngineConfig
) -> Engine:
    """An engine for this target and strategy. The draft may be loaded, or a place to load it from."""
    device = resolve_device(config.device)
    max_model_len = min(config.max_model_len or target.config.max_positions, target.config.max_positions)
    num_blocks = config.num_blocks or _fitting_blocks(target, strategy, config, max_model_len)
    blocks = BlockManager(num_blocks, config.block_size, prefix_reuse=config.prefix_reuse)
    target_threads, draft_threads = share_threads(config, strategy, device)
    if target_threads is not None and device.type == "cpu":
        torch.set_num_threads(target_threads)
    cache = PagedKVCache(target.config, num_blocks, config.block_size, target.dtype, device)
    longest_table = blocks.blocks_for(max_model_len + strategy.lookahead)
    resources = Resources(config, device, target.config.vocab_size, num_blocks, draft, draft_threads, longest_table)
    executor = make_executor(device, eager=config.eager or not target.decoder.kernels.captures)
    return Engine(
        StepRunner(target.decoder, cache, device, executor),
        strategy.build(resources),
        blocks,
        config,
        EngineLimits(max_model_len, strategy.lookahead, target.config.vocab_size),
        eos_token_ids=(target.tokenizer or target.config).eos_token_ids,
        make_decoder=lambda: IncrementalDecoder(target.tokenizer),
        meta=_describe(target, draft, strategy, config, device, target_threads),
    )


def _fitting_blocks(target: LoadedModel, strategy: StrategyConfig, config: EngineConfig, max_model_len: int) -> int:
    """Blocks for max_batch sequences of full length, or as many as fit a share of the free memory."""
    per_sequence = -(-(max_model_len + strategy.lookahead) // config.block_size)
    wanted = config.max_batch * per_sequence + 1
    block_bytes = PagedKVCache.bytes_per_block(target.config, config.block_size, target.dtype)
    free_bytes = _free_memory_bytes(resolve_device(config.device))
    fitting = wanted if free_bytes is None else int(free_bytes * CACHE_SHARE / block_bytes)
    return max(2, min(wanted, fitting))


def _free_memory_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _describe(
    target: LoadedModel,
    draft: LoadedModel | str | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
    threads: int | None,
) -> dict[str, Any]:
    """What a reader of the trace needs to know about the run."""
    return {
        "strategy": {"name": strategy.strategy_name, **strategy.model_dump(mode="json")},
        "engine": config.model_dump(mode="json"),
        "exact": strategy.exact,
        "bit_exact": target.decoder.row_padding.invariant,
        "device": str(device),
        "dtype": str(target.dtype).removeprefix("torch."),
        "threads": threads,
        "target": str(target.source),
        "draft": None if draft is None else str(draft if isinstance(draft, str) else draft.source),
        "versions": {"ssd_lab": ssd_lab.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
