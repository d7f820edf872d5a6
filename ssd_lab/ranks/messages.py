"""What the first rank tells the others: how to begin, then one number for each step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.execution.phase import AnyPhase
from ssd_lab.execution.structure import Structure, Tensors


@dataclass(frozen=True)
class Load:
    """Meet the others and load a share of the target. Answered with a `RankReport`."""


@dataclass(frozen=True)
class RankReport:
    """What a rank has: bytes of its weights, what is free beside them (0: unknown), seconds that loading took, and
    whether a row's bits depend on that row alone.
    """

    device: str
    process_id: int
    weight_bytes: int
    free_bytes: int
    load_s: float
    invariant: bool


@dataclass(frozen=True)
class Allocate:
    """Make the KV cache and what executes phases; as in `EngineConfig`. Answered with the bytes of the cache."""

    num_blocks: int
    block_size: int
    eager: bool
    debug_memory: bool


@dataclass(frozen=True)
class Layout:
    """Tensors as bytes behind each other, the largest numbers first, so that each begins where its dtype may.

    places: of each tensor in the bytes, shape and dtype, in the tensors' own order. num_bytes: of all.
    """

    places: tuple[tuple[int, tuple[int, ...], torch.dtype], ...]
    num_bytes: int

    @classmethod
    def of(cls, tensors: Tensors) -> Layout:
        """For tensors like these."""
        order = sorted(range(len(tensors)), key=lambda index: -tensors[index].element_size())
        starts, end = [0] * len(tensors), 0
        for index in order:
            starts[index] = end
            end += tensors[index].numel() * tensors[index].element_size()
        places = zip(starts, tensors, strict=True)
        return cls(tuple((start, tuple(tensor.shape), tensor.dtype) for start, tensor in places), end)

    def packed(self, tensors: Tensors) -> torch.Tensor:
        """`[num_bytes]`, on the tensors' device."""
        in_order = sorted(zip(self.places, tensors, strict=True), key=lambda pair: pair[0][0])
        parts = [tensor.contiguous().view(-1).view(torch.uint8) for _, tensor in in_order if tensor.numel()]
        return torch.cat(parts)

    def unpacked(self, packed: torch.Tensor) -> list[torch.Tensor]:
        """The tensors, as views."""
        found = []
        for start, shape, dtype in self.places:
            count = torch.Size(shape).numel()
            found.append(packed[start : start + count * dtype.itemsize].view(dtype).view(shape))
        return found


@dataclass(frozen=True)
class Program:
    """Something that will be done under this number, with inputs of this structure and layout, until another one gets
    the number.
    """

    number: int
    phase: AnyPhase
    structure: Structure
    layout: Layout


@dataclass(frozen=True)
class Run:
    """Do what has this number; its inputs come from the first rank through the group."""

    number: int
