"""Plug-ins that break, modules without decorators, heads in the draft's place."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ssd_lab import demo
from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.eagle3.known import is_head
from ssd_lab.models.loader import load_model
from ssd_lab.strategies.heads import given_as_draft
from ssd_lab.strategies.registry import ENTRY_POINT_GROUP, Registry, registry


def test_a_broken_plug_in_is_named_and_the_others_are_there(monkeypatch: pytest.MonkeyPatch):
    broken = importlib.metadata.EntryPoint("clever", "no_such_module:Clever", ENTRY_POINT_GROUP)
    good = importlib.metadata.EntryPoint("sync_chain", "ssd_lab.strategies.sync_chain:SyncChain", ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [broken, good])
    found = Registry()
    with pytest.warns(UserWarning, match="'clever' of an installed package .no_such_module:Clever. cannot be loaded"):
        assert set(found.all()) == {"sync_chain"}
    assert set(found.all()) == {"sync_chain"}, "and is told of once"


MODULE = """
from typing import ClassVar
from ssd_lab import Context, SequenceStrategy

class Plain(SequenceStrategy):
    "Nothing at all."
    strategy_name: ClassVar[str] = "plain_nothing"
    @property
    def lookahead(self): return 1
    def draft(self, context):
        raise IndexError("index 307")
"""


def test_a_module_without_decorators_makes_its_strategies_known(
    tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "my_plain_module.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    shown = CliRunner().invoke(app, ["strategies", "plain_nothing", "--import", "my_plain_module"])
    assert shown.exit_code == 0, shown.output
    assert "Nothing at all." in shown.stdout
    options = ["Hello", "-s", "plain_nothing", "-n", "4", "--set", "threads=1", *tiny_pair.options]
    quiet, told = (CliRunner().invoke(app, [*lead, "run", *options]) for lead in ([], ["--traceback"]))
    assert quiet.exit_code == told.exit_code == 2
    assert "in my_plain_module.py, line 11: index 307" in quiet.stderr and "in draft" not in quiet.stderr
    assert "my_plain_module.py" in told.stderr and "in draft" in told.stderr
    sys.modules.pop("my_plain_module")


def test_a_head_in_the_drafts_place_is_the_head_or_is_refused(tmp_path: Path):
    head = str(demo.EAGLE3)
    assert is_head(head)
    assert not any(is_head(other) for other in (demo.TARGET, demo.DRAFT, "some/hub-id", None, tmp_path))
    eagle = registry.config("eagle3", {})
    assert given_as_draft(eagle, head) == (registry.config("eagle3", {"head": head}), None)
    cascade = registry.config("cascade", {"second": "eagle3"})
    taken, left = given_as_draft(cascade, head)
    assert (taken.second.head, left) == (head, None)  # type: ignore[attr-defined]
    assert given_as_draft(eagle, "some/head") == (registry.config("eagle3", {"head": "some/head"}), None)
    for draft in (str(demo.DRAFT), "bundled-draft", None):  # as if none was given
        assert given_as_draft(eagle, draft) == (eagle, draft)
    assert given_as_draft(taken, "some/draft") == (taken, "some/draft"), "it has its head"
    assert given_as_draft(registry.config("sync_chain", {}), "some/draft")[1] == "some/draft"
    with pytest.raises(ConfigError, match="is an EAGLE3 head, and sync_chain drafts with a model"):
        given_as_draft(registry.config("sync_chain", {}), head)
    with pytest.raises(ConfigError, match="two EAGLE3 heads"):
        given_as_draft(registry.config("eagle3", {"head": "other"}), head)
    with pytest.raises(ModelLoadError, match="-s eagle3 --set head="):
        load_model(head)


def test_the_shell_can_complete_commands():
    told = CliRunner().invoke(app, ["--help"])
    assert "--install-completion" in told.stdout
