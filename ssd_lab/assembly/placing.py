"""From what a caller says of devices to who computes where: the one place that decides."""

from __future__ import annotations

import torch

from ssd_lab.assembly.build import resolve_device
from ssd_lab.config import EngineConfig
from ssd_lab.devices import DevicePlacement
from ssd_lab.errors import ConfigError
from ssd_lab.hosts.places import Places
from ssd_lab.hosts.torchrun import find
from ssd_lab.strategies.base import StrategyConfig


def placed(config: EngineConfig, strategy: StrategyConfig) -> tuple[EngineConfig, Places]:
    """The placement meant by `gpus`, by `placement` or by the one `device`, and the config with it: its `device` is the
    target's first. Raises ConfigError where GPUs are asked for that are not here. Of the processes of torchrun that a
    placement names, only the first comes back: see `find`.
    """
    placement = config.placement
    if placement is None:
        placement = _first_gpus(config.gpus, strategy) if config.gpus else _alone(config)
    if placement.names_ranks:
        return config, find(placement, config.timeout_s)
    missing = [name for name in (*placement.target, *placement.draft) if not _is_here(name)]
    if missing:
        raise ConfigError(f"placement {str(placement)!r} names {', '.join(missing)}, and {_what_is_here()}")
    told = {"device": placement.target[0], "placement": placement, "gpus": None}
    return config.model_copy(update=told), Places.here(placement)


def _alone(config: EngineConfig) -> DevicePlacement:
    return DevicePlacement(target=(str(resolve_device(config.device)),))


def _first_gpus(count: int, strategy: StrategyConfig) -> DevicePlacement:
    """The last of several drafts where the draft works while the target does; else all are the target's."""
    here = torch.cuda.device_count()
    if count > here:
        raise ConfigError(f"gpus={count} was asked for, and {_what_is_here()}")
    names = tuple(f"cuda:{index}" for index in range(count))
    if strategy.overlaps and count > 1:
        return DevicePlacement(target=names[:-1], draft=names[-1:])
    return DevicePlacement(target=names)


def _is_here(name: str) -> bool:
    return name == "cpu" or int(name.partition(":")[2]) < torch.cuda.device_count()


def _what_is_here() -> str:
    count = torch.cuda.device_count()
    found = "no GPU is here" if count == 0 else f"{count} GPU{'s are' if count > 1 else ' is'} here"
    listed = f" ({', '.join(f'cuda:{index}' for index in range(count))})" if count else ""
    return f'{found}{listed}: name others, or try it on processes of this CPU: placement={{"target": ["cpu", "cpu"]}}'
