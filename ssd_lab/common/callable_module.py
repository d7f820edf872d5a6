"""Let a package be called: `ssd_lab.strategies()` and `ssd_lab.strategies.fanout` are both public."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any


def make_callable(module_name: str, function: Callable[..., Any]) -> None:
    """Make calling the module call `function`."""

    class CallableModule(types.ModuleType):
        """A module that is also a function."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    sys.modules[module_name].__class__ = CallableModule
