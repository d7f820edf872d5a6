"""Target and draft of a run, loaded onto their device once a plan says that they fit.

Shapes, a plan that refuses what cannot fit, loading, a dry run of the largest steps, and the plan that the engine is
built by.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from ssd_lab import demo
from ssd_lab.assembly.build import share_threads
from ssd_lab.assembly.compile_ahead import compiled_ahead
from ssd_lab.assembly.cuda_check import check_cuda
from ssd_lab.assembly.draft_device import planner_of
from ssd_lab.assembly.memory_plan import MemoryPlan
from ssd_lab.assembly.memory_reader import reader_of
from ssd_lab.assembly.planning import MemoryPlanner
from ssd_lab.assembly.ranks import open_team, plan_of_ranks
from ssd_lab.common.progress import notice
from ssd_lab.config import EngineConfig
from ssd_lab.drafting.resources import takes_a_process
from ssd_lab.errors import ConfigError
from ssd_lab.hosts.places import Places
from ssd_lab.models.compatibility import check_draft
from ssd_lab.models.files.checkpoint import is_here
from ssd_lab.models.inflate.source import split_inflated
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.models.opened import OpenedModel
from ssd_lab.models.share import check_sizes
from ssd_lab.ranks.team import RankTeam
from ssd_lab.strategies import StrategyConfig


@dataclass(frozen=True)
class LoadedPair:
    """target: or the first rank's part of it, where others have the rest (team). draft: None if the strategy uses
    none. plan: who gets how much of the device.
    """

    target: LoadedModel
    draft: LoadedModel | None
    device: torch.device
    plan: MemoryPlan
    team: RankTeam | None = None


def load_pair(
    target: LoadedModel | str | None,
    draft: LoadedModel | str | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    places: Places,
    *,
    progress: bool,
) -> LoadedPair:
    """Load what is given by name; None takes the bundled pair. A draft that is going to work in a process of its own is
    only opened here and read there. Raises ConfigError, ModelLoadError (DraftMismatchError where the two do not fit
    each other) or CacheCapacityError.
    """
    device, draft_device = torch.device(places.target[0].device), torch.device(places.first_draft.device)
    check_cuda(device, config.kernels)
    target, draft = _chosen(target, draft, strategy)
    planner = MemoryPlanner(target, draft, strategy, config, device, reader_of(device), len(places.target))
    planner.check_ranks()
    beside = strategy.overlaps or bool(places.draft)
    apart = len(places.draft) > 1 or config.restart_draft > 0 or places.draft_is_elsewhere
    elsewhere = beside and isinstance(draft, str) and takes_a_process(config.draft_link, draft_device, apart=apart)
    drafts = [] if places.draft_is_elsewhere else [torch.device(place.device) for place in places.draft]
    if device.type == "cuda":  # before anything is put there
        planner_of(planner, drafts).before_loading()
    options: dict[str, Any] = {
        "dtype": config.dtype,
        "device": str(device),
        "bitwise": config.bitwise,
        "kernels": config.kernels,
        "progress": progress,
    }
    compiles = device.type == "cuda" and config.kernels in ("auto", "triton") and len(places.target) == 1
    with compiled_ahead(planner) if compiles else nullcontext() as ahead, ExitStack() as unfinished:
        team = None
        if len(places.target) > 1:
            threads = share_threads(config, strategy, device, places)[0]
            team = open_team(target, config, places.target, threads=threads, progress=progress)
            unfinished.callback(team.close)
            loaded = team.model
        else:
            loaded = load_model(target, **options) if isinstance(target, str) else target
        if isinstance(draft, str):
            its_options = {**options, "device": str(draft_device)}
            draft = OpenedModel(draft, **its_options) if elsewhere else load_model(draft, **its_options)
        if draft is not None:
            check_draft(loaded, draft)
        if draft is not None and places.asked.draft_parallel == "tensor":
            check_sizes(draft.config, len(places.draft), f"the draft {draft.source}")
        if ahead is not None:
            ahead.wait()
        planner = replace(planner, target=loaded, draft=draft)
        planned = planner_of(planner, drafts)
        plan = planned.once_loaded() if team is None else plan_of_ranks(planner, team)
        unfinished.pop_all()
    if device.type == "cuda":
        notice(f"memory of {device}\n{plan}", enabled=progress)
    elif plan.notes:
        notice("\n".join(plan.notes), enabled=progress)
    return LoadedPair(loaded, draft, device, plan, team)


def _chosen(
    target: LoadedModel | str | None, draft: LoadedModel | str | None, strategy: StrategyConfig
) -> tuple[LoadedModel | str, LoadedModel | str | None]:
    """The models that a caller means. Raises ConfigError where the strategy needs a draft and none is named."""
    if target is None:
        target = str(demo.TARGET)
        draft = str(demo.DRAFT) if draft is None else draft
    if strategy.uses_draft and draft is None:
        unknown = isinstance(target, str) and split_inflated(target) is None and not is_here(target)
        raise ConfigError(
            f"strategy {strategy.strategy_name!r} needs a draft model, and none was given: give one (draft=..., "
            "--draft: a hub id, a folder or a .gguf file), or a strategy without: prompt_lookup, autoregressive"
            + (f". And the target {target!r} is no folder here and not in the hub's cache" if unknown else "")
        )
    return target, draft if strategy.uses_draft else None
