"""Dataclasses of tensors taken apart and put together again, since graphs know tensors only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch

Tensors = tuple[torch.Tensor, ...]
Structure = Hashable
"""What is left of a value without its tensors: equal for values whose tensors may take each other's places."""

Value = TypeVar("Value")

_TENSOR = torch.Tensor  # the class, in place of each tensor: it is the same one in every process


class _Node(NamedTuple):
    kind: type
    parts: tuple[Structure, ...]


def flatten(value: Any) -> tuple[Tensors, Structure]:
    """The tensors of a value, in order, and its structure. A value is a tensor, a dataclass or a tuple of values, or
    anything else that is hashable (None, numbers, names), which belongs to the structure.
    """
    tensors: list[torch.Tensor] = []
    structure = _taken_apart(value, tensors)
    return tuple(tensors), structure


def unflatten(structure: Structure, tensors: Sequence[torch.Tensor]) -> Any:
    """The value of this structure with these tensors."""
    return _put_together(structure, iter(tensors))


def each_tensor(change: Callable[[torch.Tensor], torch.Tensor], value: Value) -> Value:
    """The value with every tensor changed."""
    tensors, structure = flatten(value)
    changed: Value = unflatten(structure, [change(tensor) for tensor in tensors])
    return changed


def _taken_apart(value: Any, tensors: list[torch.Tensor]) -> Structure:
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return _TENSOR
    kind: Any = type(value)
    names = _field_names(kind)
    if names is not None:
        return _Node(kind, tuple([_taken_apart(getattr(value, name), tensors) for name in names]))
    if kind is tuple:
        return _Node(tuple, tuple([_taken_apart(part, tensors) for part in value]))
    return value


def _put_together(structure: Structure, tensors: Iterator[torch.Tensor]) -> Any:
    if structure is _TENSOR:
        return next(tensors)
    if type(structure) is not _Node:
        return structure
    parts = [_put_together(part, tensors) for part in structure.parts]
    return tuple(parts) if structure.kind is tuple else structure.kind(*parts)


@cache
def _field_names(kind: Any) -> tuple[str, ...] | None:
    """Of a dataclass that is made from its fields in order; None for any other type."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None
