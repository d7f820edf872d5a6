"""Put an engine together: models, cache, threads, strategy."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

import ssd_lab
from ssd_lab.assembly.cuda_check import check_cuda_build
from ssd_lab.assembly.memory_plan import MemoryPlan
from ssd_lab.common.cpu_threads import CLAIMS
from ssd_lab.common.device_guard import current
from ssd_lab.config import EngineConfig
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.engine.engine import Engine
from ssd_lab.engine.limits import EngineLimits
from ssd_lab.errors import ConfigError
from ssd_lab.execution.compilations import mark_compilations
from ssd_lab.execution.make_executor import make_executor
from ssd_lab.execution.observing import NOBODY, ExecutorObserver, Observers
from ssd_lab.execution.preparations import Preparations
from ssd_lab.hosts.places import Places
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel
from ssd_lab.models.text.incremental import IncrementalDecoder
from ssd_lab.ranks.executor import RanksExecutor
from ssd_lab.ranks.team import RankTeam
from ssd_lab.rounds.block_manager import BlockManager
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.stopping import StopRules
from ssd_lab.strategies.base import StrategyConfig

THREADS_AT_START = torch.get_num_threads()  # knows OMP_NUM_THREADS; later numbers are those of other engines


def resolve_device(name: str) -> torch.device:
    """The device meant by `auto`, `cpu`, `cuda` or `cuda:N`; a CUDA device with its number, since every thread has a
    current one of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is not known: give auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        check_cuda_build(device)
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
    return device


def share_threads(
    config: EngineConfig, strategy: StrategyConfig, device: torch.device, places: Places | None = None
) -> tuple[int | None, int | None]:
    """CPU threads for each rank of the target and for a draft that works beside it; None leaves the number alone, which
    torchrun has chosen for its processes.
    """
    if device.type != "cpu" or (places is not None and places.asked.names_ranks):
        return config.threads, None
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(allowed, THREADS_AT_START)
    draft = max(1, cores // 4) if strategy.works_beside(config.draft_link, device.type) else None
    ranks = 1 if places is None else len(places.target)
    target = config.threads or max(1, (cores - (draft or 0)) // ranks)
    return target, draft


def build_engine(
    target: LoadedModel,
    draft: LoadedModel | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    plan: MemoryPlan,
    places: Places,
    team: RankTeam | None = None,
    observer: ExecutorObserver = NOBODY,
) -> Engine:
    """An engine for this target and strategy, in the memory that it is planned for. team: of the target's ranks, which
    the engine closes. observer: of what executes the phases of target and draft.
    """
    device = torch.device(places.target[0].device)
    max_model_len, num_blocks = plan.max_model_len, plan.num_blocks
    preparations = Preparations()
    if device.type == "cuda":
        mark_compilations(preparations)
    target_threads, draft_threads = share_threads(config, strategy, device, places)
    with current(device), ExitStack() as unfinished:  # what was begun is ended if the rest fails
        let_go = ExitStack()
        let_go.callback(_claim_threads(target_threads, device))
        if team is not None:
            let_go.callback(team.close)
        unfinished.callback(let_go.close)
        cache = PagedKVCache(target.config, num_blocks, config.block_size, target.dtype, device)
        longest_table = -(-(max_model_len + strategy.reserved_positions) // config.block_size)
        vocab_size = target.config.vocab_size
        proposer = strategy.build(
            Resources(
                *(config, device, places, vocab_size, num_blocks, draft, draft_threads, longest_table, target),
                observer=Observers(preparations.on("draft"), observer),
                preparations=preparations,
            )
        )
        unfinished.callback(proposer.close)
        blocks = BlockManager(
            num_blocks,
            config.block_size,
            prefix_reuse=config.prefix_reuse,
            tokens_after=1 if proposer.feature_layers else 0,
        )
        eager = config.eager or not target.decoder.kernels.captures
        observers = Observers(preparations.on("target"), observer)
        executor = make_executor(device, eager=eager, observer=observers, debug_memory=config.debug_memory)
        if team is not None:
            team.allocate(num_blocks, config.block_size, eager=config.eager, debug_memory=config.debug_memory)
            executor = RanksExecutor(executor, team)
        engine = Engine(
            StepRunner(target.decoder, cache, device, executor),
            proposer,
            blocks,
            config,
            EngineLimits(
                max_model_len,
                target.config.max_positions,
                strategy.lookahead,
                strategy.reserved_positions,
                vocab_size,
            ),
            stops=StopRules(
                frozenset((target.tokenizer or target.config).eos_token_ids),
                lambda behind: IncrementalDecoder(target.tokenizer, behind),
                {} if target.tokenizer is None else target.tokenizer.special_texts,
            ),
            meta={
                **_describe(target, draft, strategy, config, device, target_threads, team),
                "memory": plan.as_dict(),
                **_features(target, proposer),
            },
            preparations=preparations,
            on_close=let_go.close,
        )
        unfinished.pop_all()
    return engine


def _claim_threads(count: int | None, device: torch.device) -> Callable[[], None]:
    return CLAIMS.claim(count) if count is not None and device.type == "cpu" else lambda: None


def _features(target: LoadedModel, proposer: Proposer) -> dict[str, Any]:
    """Which of the target's layers a head reads the inputs of, counted from 0, and how many there are."""
    if not proposer.feature_layers:
        return {}
    return {"features": {"layers": list(proposer.feature_layers), "of": target.config.num_layers}}


def _describe(
    target: LoadedModel,
    draft: LoadedModel | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    device: torch.device,
    threads: int | None,
    team: RankTeam | None,
) -> dict[str, Any]:
    """What a reader of the trace needs to know about the run."""
    return {
        "strategy": {"name": strategy.strategy_name, **strategy.model_dump(mode="json")},
        "engine": config.model_dump(mode="json"),
        "exact": strategy.exact,
        "bit_exact": target.decoder.row_padding.invariant and (team is None or team.invariant),
        "device": str(device),
        "dtype": str(target.dtype).removeprefix("torch."),
        "threads": threads,
        "target": str(target.source),
        "draft": None if draft is None else str(draft.source),
        "versions": {"ssd_lab": ssd_lab.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
