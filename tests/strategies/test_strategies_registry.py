"""Strategies are found by name, from here and from other packages."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

import pytest

import ssd_lab
from ssd_lab.errors import ConfigError
from ssd_lab.strategies import SequenceStrategy, StrategyConfig, register_strategy, registry
from ssd_lab.strategies.registry import listed

BUILT_IN = {"autoregressive", "sync_chain", "async_tree", "prompt_lookup", "suffix_tree"}


def test_the_built_in_strategies_are_there() -> None:
    assert set(ssd_lab.strategies()) >= BUILT_IN


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_field_has_a_schema_with_a_description(name: str) -> None:
    schema = ssd_lab.strategies()[name].model_json_schema()
    assert schema["description"]
    for field in schema.get("properties", {}).values():
        assert field["description"]


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_config_survives_a_round_trip(name: str) -> None:
    config = ssd_lab.strategies()[name]()
    assert type(config)(**config.model_dump()) == config


def test_another_class_of_the_same_name_is_refused() -> None:
    class Impostor(SequenceStrategy):
        """Pretends."""

        strategy_name: ClassVar[str] = "sync_chain"

    with pytest.raises(ConfigError, match="registered already"):
        register_strategy(Impostor)


@pytest.mark.parametrize("given", [5, int, None, {"strategy": "sync_chain"}])
def test_what_is_no_strategy_is_refused_in_words(given: object) -> None:
    with pytest.raises(ConfigError, match="give a name, a strategy's class, or a ready config"):
        registry.config(given, {})  # type: ignore[arg-type]


def test_strategies_are_listed_from_one_or_several_of_any_kind() -> None:
    ready = registry.config("sync_chain", {"k": 2})
    assert listed("sync_chain") == [("sync_chain", {})]
    assert listed([ready, {"strategy": "async_tree", "k": 3}]) == [(ready, {}), ("async_tree", {"k": 3})]
    with pytest.raises(ConfigError, match="names no strategy"):
        listed([{"k": 3}])
    with pytest.raises(ConfigError, match="no strategies were given"):
        listed([])


def test_something_that_is_no_strategy_is_refused() -> None:
    with pytest.raises(ConfigError, match="derive from StrategyConfig"):
        register_strategy(dict)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, ssd_lab; print([m for m in ('torch', 'transformers', 'pydantic', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_strategies_are_configs() -> None:
    assert all(issubclass(strategy, StrategyConfig) for strategy in ssd_lab.strategies().values())
