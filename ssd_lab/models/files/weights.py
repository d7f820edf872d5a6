"""Read weights of a checkpoint folder: one safetensors file, or several with an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files import quantisation
from ssd_lab.models.files.weight_files import INDEX, SINGLE, is_lfs_pointer, weight_files

Result = TypeVar("Result")

__all__ = ["INDEX", "SINGLE", "MappingWeights", "SafetensorsWeights", "TensorReader", "Weights"]

_READ = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})


Choose = Callable[[int], tuple[int, int]]  # from the size of a dimension: where a part of it begins and ends


class Weights(Protocol):
    """Named tensors that are read one at a time."""

    def names(self) -> set[str]:
        """Names of all tensors."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in the dtype and on the device where it is (files: on the CPU)."""
        ...

    def read_part(self, name: str, dim: int, choose: Choose) -> torch.Tensor:
        """A part of one tensor along a dimension (0 or 1); files: no more than that is read, where the format allows
        it.
        """
        ...

    def place(self, name: str) -> str:
        """Where a tensor lies, for a message."""
        ...


def part_of(tensor: torch.Tensor, dim: int, choose: Choose) -> torch.Tensor:
    """That part of a tensor that is in memory."""
    start, stop = choose(tensor.shape[dim])
    return tensor.narrow(dim, start, stop - start)


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

    def read_part(self, name: str, dim: int, choose: Choose) -> torch.Tensor:
        """A view of it."""
        return part_of(self._tensors[name], dim, choose)

    def place(self, name: str) -> str:
        """In memory."""
        return "the tensors in memory"


class SafetensorsWeights:
    """A folder's safetensors files, memory-mapped: only what is read takes memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file_of: dict[str, Path] = {}
        self._types: dict[str, str] = {}
        for file in weight_files(folder):
            types = _open(file, _types)
            self._types |= types
            self._file_of |= dict.fromkeys(types, file)

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._file_of)

    def read(self, name: str) -> torch.Tensor:
        """One tensor. Raises ModelLoadError if the file is damaged."""
        return _open(self._file_of[name], lambda handle: handle.get_tensor(name))

    def read_part(self, name: str, dim: int, choose: Choose) -> torch.Tensor:
        """A part of one tensor; raises as `read` does."""

        def read(handle: Any) -> torch.Tensor:
            whole = handle.get_slice(name)
            places = slice(*choose(whole.get_shape()[dim]))
            part: torch.Tensor = whole[places] if dim == 0 else whole[:, places]
            return part

        return _open(self._file_of[name], read)

    def place(self, name: str) -> str:
        """The file."""
        return str(self._file_of.get(name, self._folder))

    def check_types(self) -> None:
        """Raise ModelLoadError if weights are quantised; only the files' headers are read."""
        quantisation.check_types(self._types, str(self._folder))


def _types(handle: Any) -> dict[str, str]:
    names: list[str] = handle.keys()
    return {name: handle.get_slice(name).get_dtype() for name in names}


def _open(file: Path, use: Callable[[Any], Result]) -> Result:
    try:
        with safe_open(file, framework="pt") as handle:
            return use(handle)
    except FileNotFoundError as error:
        raise ModelLoadError(f"weight file {file} is missing: download the checkpoint again") from error
    except (SafetensorError, OSError, ValueError) as error:
        if is_lfs_pointer(file):
            raise ModelLoadError(
                f"{file} is not the weights but a pointer to them that Git LFS left: run `git lfs pull` in "
                f"{file.parent}, or download the checkpoint with `hf download`"
            ) from error
        raise ModelLoadError(f"weight file {file} is truncated or damaged ({error}): download it again") from error


class TensorReader:
    """Takes tensors out of a checkpoint, checking shapes and keeping account of what was used. source: its name, for
    messages.
    """

    def __init__(self, weights: Weights, dtype: torch.dtype, device: torch.device, source: str) -> None:
        self._weights = weights
        self._dtype = dtype
        self._device = device
        self.source = source
        self._names = weights.names()
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor, converted. Raises ModelLoadError if it is missing, of another shape, or quantised."""
        if name not in self._names:
            raise ModelLoadError(f"{self.source} lacks the tensor {name}: {self._instead(name)}")
        tensor = self._weights.read(name)
        if tuple(tensor.shape) != shape:
            raise ModelLoadError(
                f"{self._weights.place(name)}: tensor {name} has shape {list(tensor.shape)}, and the config asks for "
                f"{list(shape)}"
            )
        if tensor.dtype not in _READ:
            raise ModelLoadError(
                f"{self._weights.place(name)}: tensor {name} is quantised "
                f"({str(tensor.dtype).removeprefix('torch.')}): {quantisation.WHAT_TO_TAKE}"
            )
        self._used.add(name)
        return tensor.to(self._device, self._dtype)

    def _instead(self, name: str) -> str:
        """What a missing tensor may be called here, or what its absence means."""
        similar = sorted(other for other in self._names if other.endswith(name) or name.endswith(f".{other}"))
        if similar:
            return f"it has {similar[0]}, so it was saved as a part of another model, or without its own head"
        if name == "lm_head.weight":
            return "if its embedding is the output head too, set tie_word_embeddings to true in its config.json"
        return "its config describes another model, or the checkpoint is not whole"

    def take_joined(self, names: list[str], shapes: list[tuple[int, ...]]) -> torch.Tensor:
        """Several tensors, one below the other."""
        return torch.cat([self.take(name, *shape) for name, shape in zip(names, shapes, strict=True)])

    def check_all_used(self, ignored: tuple[str, ...]) -> None:
        """Raise ModelLoadError if tensors are left over, other than those whose names end as `ignored` says."""
        left = sorted(name for name in self._names - self._used if not name.endswith(ignored))
        if left:
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise ModelLoadError(
                f"{self.source} holds tensors that the config does not explain: {', '.join(left[:5])}{more}; without "
                "them it would be another model, so take a checkpoint whose config.json describes all it holds"
            )


class NoWeights(TensorReader):
    """Tensors of any name and shape, without memory (device `meta`)."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(MappingWeights({}), dtype, torch.device("meta"), "a shape without weights")

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """A tensor of that shape."""
        return torch.empty(shape, dtype=self._dtype, device=self._device)
