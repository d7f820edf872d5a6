"""The current device: where events are recorded, graphs captured and Triton kernels launched when nobody says where.

Each thread has its own. Whatever works on a device comes in by a door that makes the device current, in whichever
thread it is called: loading, planning, building an engine, the engine's methods, a draft worker's, a link's making.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
Result = TypeVar("Result")

GUARDS: Mapping[str, Callable[[torch.device], AbstractContextManager[Any]]] = {"cuda": torch.cuda.device}  # by type


def current(device: torch.device | str) -> AbstractContextManager[Any]:
    """Makes it the current one within; nothing where there is only one of its type."""
    device = torch.device(device)
    guard = GUARDS.get(device.type)
    return nullcontext() if guard is None else guard(device)


def door(device_of: Callable[[Any], torch.device]) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """A method that works on its object's device, which `device_of` names."""

    def decorate(method: Callable[P, Result]) -> Callable[P, Result]:
        @wraps(method)
        def guarded(*args: P.args, **named: P.kwargs) -> Result:
            with current(device_of(args[0])):
                return method(*args, **named)

        return guarded

    return decorate
