"""Names of strategies: the built-in ones, those registered in this process, and those of installed packages."""

from __future__ import annotations

import difflib
import importlib.metadata
import inspect
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

from ssd_lab.common.validation import validated
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.errors import ConfigError, UnknownStrategyError
from ssd_lab.strategies.base import StrategyConfig

ENTRY_POINT_GROUP = "ssd_lab.strategies"

Strategy = TypeVar("Strategy", bound=type[StrategyConfig])


class Registry:
    """Strategy classes by name."""

    def __init__(self) -> None:
        self._classes: dict[str, type[StrategyConfig]] = {}
        self._searched_packages = False

    def register(self, strategy: Strategy) -> Strategy:
        """Add a strategy class under its `strategy_name`; use as a decorator. Another class of the same name is
        refused.

        Defining the same class again (a notebook cell run twice) replaces it.
        """
        name = getattr(strategy, "strategy_name", None)
        if not isinstance(strategy, type) or not issubclass(strategy, StrategyConfig) or not isinstance(name, str):
            raise ConfigError(f"{strategy!r} is no strategy: derive from StrategyConfig and set strategy_name")
        known = self._classes.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (strategy.__module__, strategy.__qualname__):
            raise ConfigError(
                f"a strategy named {name!r} is registered already ({known.__module__}.{known.__qualname__})"
            )
        self._classes[name] = strategy
        return strategy

    def register_of(self, module: ModuleType) -> None:
        """Add the strategies that a module defines, with a decorator or without."""
        for one in vars(module).values():
            own = isinstance(one, type) and issubclass(one, StrategyConfig) and one.__module__ == module.__name__
            if own and not inspect.isabstract(one) and isinstance(getattr(one, "strategy_name", None), str):
                self.register(one)

    def all(self) -> dict[str, type[StrategyConfig]]:
        """Every known strategy, by name."""
        if not self._searched_packages:
            self._searched_packages = True
            for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
                try:
                    self.register(entry_point.load())
                except Exception as error:  # a package of somebody else's may do anything, and the others go on
                    package = "an installed package" if entry_point.dist is None else entry_point.dist.name
                    warnings.warn(
                        f"the strategy {entry_point.name!r} of {package} ({entry_point.value}) cannot be loaded and is "
                        f"left out: {type(error).__name__}: {error}",
                        stacklevel=2,
                    )
        return dict(sorted(self._classes.items()))

    def config(self, strategy: str | StrategyConfig | type[StrategyConfig], fields: dict[str, Any]) -> StrategyConfig:
        """The strategy's config with these fields.

        Raises UnknownStrategyError with the nearest names, or ConfigError that says which field is wrong and what is
        allowed.
        """
        if isinstance(strategy, StrategyConfig):
            if fields:
                raise ConfigError(
                    f"{sorted(fields)} were given beside a ready {type(strategy).__name__}: set them in it"
                )
            return strategy
        if isinstance(strategy, str):
            found = self._find(strategy)
        elif isinstance(strategy, type) and issubclass(strategy, StrategyConfig):
            found = strategy
        else:
            raise ConfigError(f"strategy is {strategy!r}: give a name, a strategy's class, or a ready config of one")
        elsewhere = (*EngineConfig.model_fields, *SamplingParams.model_fields)
        return validated(found, fields, name=found.strategy_name, others=elsewhere)

    def _find(self, name: str) -> type[StrategyConfig]:
        classes = self.all()
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise UnknownStrategyError(f"unknown strategy {name!r}: {hint}known are {', '.join(classes)}")
        return classes[name]


registry = Registry()


def listed(strategies: Any) -> list[tuple[Any, dict[str, Any]]]:
    """Of one strategy or several, each as a name, a class, a config, or a dictionary with `strategy` and its fields:
    what `Registry.config` takes, and the fields. Raises ConfigError for none, or a dictionary that names no strategy.
    """
    one = isinstance(strategies, str | Mapping | StrategyConfig | type)
    found: list[tuple[Any, dict[str, Any]]] = []
    for entry in [strategies] if one else list(strategies):
        fields = dict(entry) if isinstance(entry, Mapping) else {"strategy": entry}
        if "strategy" not in fields:
            raise ConfigError(f"{fields} names no strategy: give a dictionary the key 'strategy' beside its fields")
        found.append((fields.pop("strategy"), fields))
    if not found:
        raise ConfigError("no strategies were given: name at least one")
    return found
