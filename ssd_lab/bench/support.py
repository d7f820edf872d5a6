"""What a benchmark asks for and cannot have: refused in words before anything is loaded, never silently reduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab import demo
from ssd_lab.assembly.build import resolve_device
from ssd_lab.bench.config import BUNDLED, BenchConfig, is_prompt_file
from ssd_lab.bench.contenders import peer_names
from ssd_lab.bench.inflated import check_fits, fits_gpu, geometry_of_repository
from ssd_lab.bench.names import require_local, resolve_model
from ssd_lab.common.prompt_file import read_prompt_file
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.inflate.source import split_inflated
from ssd_lab.settings import settings
from ssd_lab.strategies import StrategyConfig, registry

OFFER = "add `--models bundled` to run the same strategy on this machine with the models that come with the package"


def check_supported(config: BenchConfig) -> StrategyConfig:
    """The strategy's config. Raises ConfigError for what cannot be done at all, and for more GPUs than are here."""
    if config.num_gpus > max(1, torch.cuda.device_count()):
        raise ConfigError(
            f"{config.num_gpus} GPUs were asked for (--gpus), and {torch.cuda.device_count()} are here: leave --gpus "
            f"out, and for a target that needs several, {OFFER}"
        )
    if config.peers and split_inflated(config.target) is not None:
        raise ConfigError(
            f"{config.target} is made in memory and other programs (--peer) read folders: leave --peer out, or give "
            "--models bundled"
        )
    strategy = registry.config(config.strategy, {**_fields(config), **_draft_temperature(config)})
    if strategy.uses_draft and config.draft is None and config.target != BUNDLED:
        raise ConfigError(f"strategy {config.strategy!r} needs a draft model: give --draft-model, or --models bundled")
    return strategy


def _draft_temperature(config: BenchConfig) -> dict[str, float]:
    """The strategy's field for a draft temperature other than the requests' own."""
    if config.draft_temperature is None or config.draft_temperature == config.temperature:
        return {}
    strategy = registry.all().get(config.strategy)
    if strategy is not None and "draft_temperature" not in strategy.model_fields:
        raise ConfigError(
            f"a draft temperature of {config.draft_temperature} (--dtemp) was given, and strategy {config.strategy!r} "
            "has none: leave --dtemp out, or draft with sync_chain or async_tree"
        )
    return {"draft_temperature": config.draft_temperature}


def _fields(config: BenchConfig) -> dict[str, Any]:
    """The strategy's fields, with the config's draft in the one that names it, where its draft is no model."""
    known = registry.all().get(config.strategy)
    field: str | None = None if known is None else known.draft_field
    if field is None or config.draft is None or config.draft == BUNDLED:
        return config.strategy_fields
    return {field: config.draft, **config.strategy_fields}


def check_device(config: BenchConfig, strategy: StrategyConfig) -> None:
    """Raises ConfigError if the device asked for is not here, or inflated weights do not fit into its memory."""
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"{config.target} is to run on a GPU and no CUDA GPU is here: {OFFER}, or --device cpu to run it on the CPU"
        )
    resolve_device(config.device)
    check_fits(config, strategy)


def find_checkpoint(name: str) -> str:
    """The folder or file that a model's name stands for on this machine.

    Raises ModelLoadError, which says what is missing and what works here, if it is not here: a benchmark downloads
    nothing by itself. An inflated model is made where it is needed, and so is here.
    """
    resolved = resolve_model(name, settings=settings())
    try:
        return require_local(resolved, settings=settings())
    except ModelLoadError as error:
        shape = geometry_of_repository(resolved)
        if shape is None or not fits_gpu(shape):
            raise
        raise ModelLoadError(f"{error}, or `--geometry {shape.name}`: its shape with inflated weights") from error


@dataclass(frozen=True)
class Parts:
    """What a run is made of, as it is on this machine. draft: None for strategies without a draft model."""

    strategy: StrategyConfig
    target: str
    draft: str | None


def find_parts(config: BenchConfig) -> Parts:
    """Where everything is loaded from; the bundled target takes the bundled draft where none is named.

    Raises ConfigError, PromptError or ModelLoadError for what this machine cannot do or does not have, before anything
    is loaded.
    """
    strategy = check_supported(config)
    for file in filter(is_prompt_file, config.datasets):
        read_prompt_file(file)
    field = strategy.draft_field
    if field is not None and getattr(strategy, field) is not None:
        strategy = strategy.model_copy(update={field: find_checkpoint(getattr(strategy, field))})
    peer_names(config.peers, has_draft=config.draft is not None or config.target == BUNDLED)
    target = str(demo.TARGET) if config.target == BUNDLED else find_checkpoint(config.target)
    draft = None
    if strategy.uses_draft:
        draft = str(demo.DRAFT) if config.draft in (None, BUNDLED) else find_checkpoint(str(config.draft))
    check_device(config, strategy)
    return Parts(strategy, target, draft)
