"""Target and draft of a run, loaded onto their device once a plan says that they fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab import demo
from ssd_lab.assembly.build import open_draft, resolve_device
from ssd_lab.assembly.cuda_check import check_cuda
from ssd_lab.assembly.memory_plan import MemoryPlan
from ssd_lab.assembly.planning import plan_before_loading, plan_loaded
from ssd_lab.common.progress import notice
from ssd_lab.config import EngineConfig
from ssd_lab.errors import ConfigError
from ssd_lab.models.compatibility import check_draft
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.strategies import StrategyConfig


@dataclass(frozen=True)
class LoadedPair:
    """draft: None if the strategy uses none. plan: who gets how much of the device."""

    target: LoadedModel
    draft: LoadedModel | None
    device: torch.device
    plan: MemoryPlan


def load_pair(
    target: LoadedModel | str | None,
    draft: LoadedModel | str | None,
    strategy: StrategyConfig,
    config: EngineConfig,
    *,
    progress: bool,
) -> LoadedPair:
    """Load what is given by name; None takes the bundled pair. Raises ConfigError, ModelLoadError (DraftMismatchError
    where the two do not fit each other) or CacheCapacityError.
    """
    device = resolve_device(config.device)
    check_cuda(device, config.kernels)
    if target is None:
        target = str(demo.TARGET)
        draft = str(demo.DRAFT) if draft is None else draft
    if strategy.uses_draft and draft is None:
        raise ConfigError(
            f"strategy {strategy.strategy_name!r} needs a draft model: pass draft=<hub id, folder or .gguf file>"
        )
    if not strategy.uses_draft:
        draft = None
    if device.type == "cuda":  # before anything is put there
        first_plan = plan_before_loading(target, draft, strategy, config, device)
        notice(f"memory on {device}\n{first_plan}", enabled=progress)
    loaded = _load_target(target, config, device, progress=progress)
    opened: LoadedModel | None = None
    if draft is not None:
        opened = open_draft(draft, strategy, config, device, progress=progress)
        check_draft(loaded, opened)
    plan = plan_loaded(loaded, opened, strategy, config, device)
    if device.type == "cuda":
        notice(f"measured on {device}\n{plan}", enabled=progress)
    elif plan.notes:
        notice("\n".join(plan.notes), enabled=progress)
    return LoadedPair(loaded, opened, device, plan)


def _load_target(
    model: LoadedModel | str, config: EngineConfig, device: torch.device, *, progress: bool
) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    return load_model(
        model,
        dtype=config.dtype,
        device=str(device),
        bitwise=config.bitwise,
        kernels=config.kernels,
        progress=progress,
    )
