"""Published shapes with inflated weights, as `--geometry` names them: which models these are, and do they fit here?"""

from __future__ import annotations

import torch

from ssd_lab import demo
from ssd_lab.assembly.build import resolve_device
from ssd_lab.bench.config import BenchConfig
from ssd_lab.display.environment import free_memory_bytes
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.files.checkpoint import read_config
from ssd_lab.models.inflate.geometry import GEOMETRIES, Geometry, find_geometry
from ssd_lab.models.inflate.plan import plan_inflation
from ssd_lab.models.inflate.source import inflated_source, split_inflated
from ssd_lab.models.loader import resolve_dtype
from ssd_lab.strategies import StrategyConfig

SMALL_TARGET, SMALL_DRAFT = "bundled-target", "bundled-draft"
GPU_SHARE = 0.9  # of a GPU's memory that may be weights: the rest is for KV blocks and what a forward pass works with
CPU_SHARE = 0.6  # of the free memory: weights are packed while they are loaded, and other programs want some too
_DRAFTS = {"llama": "llama-1b", "qwen3": "qwen3-0.6b"}  # the smallest of each family


def geometry_of_repository(repository: str) -> Geometry | None:
    """The geometry of a published model's hub id, if there is one."""
    return next((shape for shape in GEOMETRIES.values() if shape.repository == repository), None)


def inflated_target(name: str, repository: str | None) -> str:
    """The target that `--geometry NAME` asks for; repository: what a size beside it stands for.

    Raises ConfigError if the two are different models, ModelLoadError for an unknown geometry or one that the bundled
    target does not fit into.
    """
    shape = find_geometry(name)
    _plan(shape)
    if repository is not None and repository != shape.repository:
        raise ConfigError(
            f"--geometry {shape.name} is the shape of {shape.repository}, and the size beside it that of {repository}: "
            "leave one of them out"
        )
    return inflated_source(shape.name, SMALL_TARGET)


def inflated_draft(target: str, draft: str | None) -> str:
    """The draft of an inflated target: a geometry's name or its size (`1`, `0.6`), else the family's smallest.

    Raises ConfigError for a draft of another vocabulary, ModelLoadError for an unknown geometry.
    """
    shape = find_geometry(target)
    family = "qwen3" if shape.name.startswith("qwen3") else "llama"
    if draft is None:
        chosen = find_geometry(_DRAFTS[family])
    else:
        chosen = GEOMETRIES.get(f"{family}-{draft.lower().removesuffix('b')}b") or find_geometry(draft)
    if chosen.config.vocab_size != shape.config.vocab_size:
        raise ConfigError(
            f"--draft {chosen.name} has {chosen.config.vocab_size:,} tokens and --geometry {shape.name} has "
            f"{shape.config.vocab_size:,}: give a draft of the same family, such as {_DRAFTS[family]}"
        )
    return inflated_source(chosen.name, SMALL_DRAFT)


def check_fits(config: BenchConfig, strategy: StrategyConfig) -> None:
    """Raises ConfigError if inflated weights are more than the memory of the device that they are to be made in."""
    shapes = _shapes(config, strategy)
    device = resolve_device(config.device)
    if (
        not shapes or config.num_gpus > 1 or config.placement is not None
    ):  # shared out: the memory plan looks at each device before it is loaded
        return
    each_bytes = resolve_dtype(config.dtype, device).itemsize
    needed, room = sum(shape.num_parameters for shape in shapes) * each_bytes, _room(device)
    if room is None or needed <= room:
        return
    fitting = [
        name
        for name, shape in GEOMETRIES.items()
        if shape.num_parameters * each_bytes <= room and _takes_the_bundled_target(shape)
    ]
    smaller = f"--geometry {', '.join(fitting)} fit{'s' * (len(fitting) == 1)} here alone; " if fitting else ""
    names = " with ".join(shape.name for shape in shapes)
    raise ConfigError(
        f"the weights of {names} take {needed / 1e9:.1f} GB and {_place(device)} "
        f"has room for {room / 1e9:.1f} GB of them: several share them with --gpus, where they are here. {smaller}"
        "--models bundled runs anywhere"
    )


def fits_gpu(shape: Geometry) -> bool:
    """Is a GPU here that holds this model?"""
    if not torch.cuda.is_available():
        return False
    room = _room(torch.device("cuda", 0))
    return room is not None and shape.bytes <= room


def _plan(shape: Geometry) -> None:
    plan_inflation(read_config(demo.TARGET), shape.config, shape.name)


def _takes_the_bundled_target(shape: Geometry) -> bool:
    try:
        _plan(shape)
    except ModelLoadError:
        return False
    return True


def _shapes(config: BenchConfig, strategy: StrategyConfig) -> list[Geometry]:
    names = [config.target, config.draft if strategy.uses_draft else None]
    parts = [None if name is None else split_inflated(name) for name in names]
    return [find_geometry(part[0]) for part in parts if part is not None]


def _room(device: torch.device) -> int | None:
    """Bytes that weights may take there; None where the system does not tell."""
    if device.type == "cuda":
        return int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    free = free_memory_bytes()
    return None if free is None else int(CPU_SHARE * free)


def _place(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine's free memory"
