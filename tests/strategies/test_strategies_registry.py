"""Strategies are found by name, from here and from other packages."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import ClassVar

import pytest

import ssd_lab
from ssd_lab.errors import ConfigError
from ssd_lab.strategies import Context, SequenceStrategy, StrategyConfig, register_strategy

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


def test_something_that_is_no_strategy_is_refused() -> None:
    with pytest.raises(ConfigError, match="derive from StrategyConfig"):
        register_strategy(dict)


def test_a_package_adds_a_strategy_by_entry_point(tmp_path: Path) -> None:
    """A package outside ssd_lab, installed as a wheel would lay it out, is found in a fresh interpreter."""
    (tmp_path / "outside.py").write_text(
        textwrap.dedent(
            '''
            from typing import ClassVar
            from ssd_lab import Context, SequenceStrategy

            class Echo(SequenceStrategy):
                """Guesses the last token again."""
                strategy_name: ClassVar[str] = "echo"
                lookahead: ClassVar[int] = 1

                def draft(self, context: Context) -> list[int]:
                    return [context.token_ids[-1]]
            '''
        )
    )
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ssd_lab.strategies]\necho = outside:Echo\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ssd_lab; print(*ssd_lab.strategies())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "echo" in done.stdout.split()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, ssd_lab; print([m for m in ('torch', 'transformers', 'pydantic', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_strategies_are_configs() -> None:
    assert all(issubclass(strategy, StrategyConfig) for strategy in ssd_lab.strategies().values())
