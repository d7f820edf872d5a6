"""Modules of the user's, by name: what strategies they define is known from then on."""

from __future__ import annotations

from collections.abc import Iterable

from ssd_lab.common.parsing import import_modules
from ssd_lab.strategies.registry import registry


def import_strategies(names: Iterable[str]) -> None:
    """Import the modules and register the strategies that they define. Raises ConfigError for one that fails."""
    for module in import_modules(names):
        registry.register_of(module)
