"""Write an inflated model as a checkpoint folder, shard by shard; an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssd_lab.common.places import write_text
from ssd_lab.common.progress import progress_bar
from ssd_lab.errors import ConfigError
from ssd_lab.models.files.checkpoint import Checkpoint
from ssd_lab.models.files.config_json import config_to_json
from ssd_lab.models.files.weights import INDEX
from ssd_lab.models.inflate.geometry import Geometry
from ssd_lab.models.inflate.plan import InflationPlan
from ssd_lab.models.inflate.safetensors_writer import file_bytes, write_safetensors
from ssd_lab.models.inflate.source import open_inflated
from ssd_lab.models.inflate.weights import InflatedWeights

MANIFEST = "inflated.json"
SHARD_BYTES = 2_000_000_000
SPARE_BYTES = 100_000_000  # left free on the disk
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class WrittenModel:
    """What is in the folder now. resumed: shards that were there already; exact: see `InflationPlan.copies_exactly`."""

    folder: Path
    geometry: str
    num_parameters: int
    bytes: int
    shards: int
    resumed: int
    exact: bool
    notes: tuple[str, ...]


def write_inflated(
    geometry: str | Geometry,
    source: str | Path,
    folder: str | Path,
    *,
    dtype: str = "bfloat16",
    device: str = "cpu",
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = False,
) -> WrittenModel:
    """Write the model of `load_inflated` as safetensors with config and tokenizer, which transformers loads too.

    Shards hold at most `shard_bytes`, or one larger tensor; one tensor is in memory at a time, made on `device`. What
    an earlier call wrote whole is kept. Raises ModelLoadError if the small model does not fit, ConfigError if the
    folder holds something else or the disk is too small.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not written: {' and '.join(DTYPES)} are")
    opened = open_inflated(geometry, source)
    shape, small, plan = opened.geometry, opened.small, opened.plan
    weights = InflatedWeights(plan, small.weights, dtype=DTYPES[dtype], device=torch.device(device), seed=seed)
    shards = _shards(weights.shapes, DTYPES[dtype], shard_bytes)
    place = Path(folder).expanduser()
    _claim(place, _manifest(shape, str(source), small, plan, dtype, seed, shard_bytes))
    sizes = {file: file_bytes(shapes, DTYPES[dtype]) for file, shapes in shards.items()}
    missing = [file for file, size in sizes.items() if not _is_whole(place / file, size)]
    _check_disk(place, sum(sizes[file] for file in missing))
    total = sum(sizes[file] for file in missing)
    try:
        with progress_bar(total, f"writing {shape.name}", "B", enabled=progress, unit_scale=True) as bar:
            for file in missing:
                write_safetensors(place / file, shards[file], DTYPES[dtype], weights.read, bar.update)
    except OSError as error:
        raise ConfigError(
            f"{place} could not be written ({error.strerror}): what is there stays, and the same call goes on from it"
        ) from error
    inflated = {"geometry": shape.name, "source": str(source), "layers": list(plan.layers), "notes": list(plan.notes)}
    _write_json(place / "config.json", {**config_to_json(plan.config, dtype=dtype), "inflated": inflated})
    if small.tokenizer is not None:
        small.tokenizer.save(place)
    weight_map = {name: file for file, shapes in shards.items() for name in shapes}
    _write_json(place / INDEX, {"metadata": {"total_size": _bytes(weights, dtype)}, "weight_map": weight_map})
    return WrittenModel(
        folder=place,
        geometry=shape.name,
        num_parameters=plan.config.num_parameters,
        bytes=sum(sizes.values()),
        shards=len(shards),
        resumed=len(shards) - len(missing),
        exact=plan.copies_exactly,
        notes=plan.notes,
    )


def _shards(
    shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, shard_bytes: int
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Tensors in order, cut into files."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        if groups[-1] and filled + size > shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = shape
        filled += size
    return {f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups)}


def _manifest(
    geometry: Geometry, source: str, small: Checkpoint, plan: InflationPlan, dtype: str, seed: int, shard_bytes: int
) -> dict[str, Any]:
    """What makes two inflated models the same; the small weights are told apart by their last norm."""
    digest = hashlib.blake2b(repr(plan).encode(), digest_size=8)
    digest.update(small.weights.read("model.norm.weight").float().numpy().tobytes())
    return {
        "geometry": geometry.name,
        "source": source,
        "dtype": dtype,
        "seed": seed,
        "shard_bytes": shard_bytes,
        "fingerprint": digest.hexdigest(),
    }


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Make the folder ours, or find that it is. Raises ConfigError if it holds anything else."""
    file = folder / MANIFEST
    if file.exists():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        different = [name for name, value in manifest.items() if found.get(name) != value]
        if different:
            raise ConfigError(
                f"{folder} holds another inflated model (its {', '.join(different)} differ): give an empty folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty and holds no inflated model: give an empty folder or a new one")
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(file, manifest)


def _is_whole(file: Path, size: int) -> bool:
    return file.exists() and file.stat().st_size == size


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE_BYTES > free:
        raise ConfigError(
            f"{needed / 1e9:.1f} GB are to be written to {folder} and {free / 1e9:.1f} GB are free: give a folder on a "
            "larger disk, a smaller geometry, or make the model in memory (inflated:GEOMETRY:SOURCE as a model's name)"
        )


def _bytes(weights: InflatedWeights, dtype: str) -> int:
    return sum(math.prod(shape) for shape in weights.shapes.values()) * DTYPES[dtype].itemsize


def _write_json(file: Path, document: dict[str, Any]) -> None:
    write_text(file, json.dumps(document, indent=2) + "\n")
