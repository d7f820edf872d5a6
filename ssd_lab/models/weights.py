"""Read weights of a checkpoint folder: one safetensors file, or several with an index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open

from ssd_lab.errors import ModelLoadError

Result = TypeVar("Result")

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Weights(Protocol):
    """Named tensors that are read one at a time."""

    def names(self) -> set[str]:
        """Names of all tensors."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in the dtype and on the device where it is (files: on the CPU)."""
        ...


class MappingWeights:
    """Tensors that are in memory already."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._tensors)

    def read(self, name: str) -> torch.Tensor:
        """One tensor."""
        return self._tensors[name]


class SafetensorsWeights:
    """A folder's safetensors files, memory-mapped: only what is read takes memory."""

    def __init__(self, folder: Path) -> None:
        self._file_of: dict[str, Path] = {}
        for file in _files(folder):
            for name in _open(file, lambda handle: list(handle.keys())):
                self._file_of[name] = file

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._file_of)

    def read(self, name: str) -> torch.Tensor:
        """One tensor. Raises ModelLoadError if the file is damaged."""
        return _open(self._file_of[name], lambda handle: handle.get_tensor(name))


def _open(file: Path, use: Callable[[Any], Result]) -> Result:
    try:
        with safe_open(file, framework="pt") as handle:
            return use(handle)
    except FileNotFoundError as error:
        raise ModelLoadError(f"weight file {file} is missing: download the checkpoint again") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelLoadError(f"weight file {file} is truncated or damaged ({error}): download it again") from error


def _files(folder: Path) -> Iterator[Path]:
    if (folder / INDEX).exists():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelLoadError(f"{folder / INDEX} is damaged ({error}): download it again") from error
        missing = [shard for shard in shards if not (folder / shard).exists()]
        if missing:
            raise ModelLoadError(f"{folder} lacks the weight files {', '.join(missing)} that its index names")
        yield from (folder / shard for shard in shards)
    elif (folder / SINGLE).exists():
        yield folder / SINGLE
    else:
        raise ModelLoadError(f"{folder} has neither {SINGLE} nor {INDEX}: only safetensors checkpoints are read")


class TensorReader:
    """Takes tensors out of a checkpoint, checking shapes and keeping account of what was used."""

    def __init__(self, weights: Weights, dtype: torch.dtype, device: torch.device, source: str) -> None:
        self._weights = weights
        self._dtype = dtype
        self._device = device
        self._source = source
        self._names = weights.names()
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor, converted. Raises ModelLoadError if it is missing or of another shape."""
        if name not in self._names:
            raise ModelLoadError(f"{self._source} lacks the tensor {name}: its config describes another model")
        tensor = self._weights.read(name)
        if tuple(tensor.shape) != shape:
            raise ModelLoadError(
                f"{self._source}: tensor {name} has shape {list(tensor.shape)}, and the config asks for {list(shape)}"
            )
        self._used.add(name)
        return tensor.to(self._device, self._dtype)

    def take_joined(self, names: list[str], shapes: list[tuple[int, ...]]) -> torch.Tensor:
        """Several tensors, one below the other."""
        return torch.cat([self.take(name, *shape) for name, shape in zip(names, shapes, strict=True)])

    def check_all_used(self, ignored: tuple[str, ...]) -> None:
        """Raise ModelLoadError if tensors are left over, other than those whose names end as `ignored` says."""
        left = sorted(name for name in self._names - self._used if not name.endswith(ignored))
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise ModelLoadError(
                f"{self._source} holds tensors that the config does not explain: {', '.join(left[:5])}{more}"
            )
