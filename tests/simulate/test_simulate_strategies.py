"""Strategies say how their rounds are drawn, those of users too."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from ssd_lab.cli.main import app
from ssd_lab.decoding.fan_out import HitLaw
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import HardwareProfile, OutcomeModel, Scenario, simulate
from ssd_lab.simulate.closed_form import expected_tokens, speedup_sync
from ssd_lab.strategies import Proposer, SequenceStrategy, StrategyConfig, registry
from ssd_lab.trace import RoundRecord, SequenceRound, Trace
from ssd_lab.tune.candidates import Candidate, grid
from ssd_lab.tune.scoring import Scorer, TuneMachine

MODEL = OutcomeModel.of(0.8, HitLaw(0.7, 0.6))
MACHINE = HardwareProfile(name="unit", source="by hand", verify_s=1.0, draft_step_s=0.12, draft_tree_step_s=0.15)
COMB = {"kind": "fixed", "paths": [[0], [1], [0, 0]]}


class OwnChain(StrategyConfig):
    """Drafts with the model, in a way of its own."""

    strategy_name: ClassVar[str] = "own_chain"
    needs_draft: ClassVar[bool] = True
    k: int = 4

    @property
    def lookahead(self) -> int:
        return self.k

    def build(self, resources: Any) -> Proposer:
        raise NotImplementedError


class OwnLookup(SequenceStrategy):
    """Guesses from the text."""

    strategy_name: ClassVar[str] = "own_lookup"
    k: int = 3

    @property
    def lookahead(self) -> int:
        return self.k

    def draft(self, context: Any) -> list[int]:
        return []


class OwnOverlap(OwnChain):
    """Drafts while the target verifies, which only it can say how."""

    strategy_name: ClassVar[str] = "own_overlap"
    overlaps: ClassVar[bool] = True


@pytest.fixture
def registered() -> Iterator[None]:
    for own in (OwnChain, OwnLookup, OwnOverlap):
        registry.register(own)
    yield
    for own in (OwnChain, OwnLookup, OwnOverlap):
        del registry._classes[own.strategy_name]


def test_a_strategy_of_a_user_is_drawn_as_it_drafts():
    chain = simulate(MODEL, MACHINE, scenario=replace(OwnChain(k=4).scenario, rounds=30_000))
    assert chain.strategy == "own_chain"
    assert chain.speedup == pytest.approx(speedup_sync(expected_tokens(0.8, 4), 0.48), rel=0.01)
    lookup = simulate(MODEL, MACHINE, scenario=replace(OwnLookup().scenario, rounds=100))
    assert lookup.time_by_cause["draft"] == 0


@pytest.mark.parametrize(
    ("named", "fields", "scenario"),
    [
        ("autoregressive", {}, Scenario("autoregressive", k=1)),
        ("sync_chain", {"k": 3}, Scenario("sync_chain", 3)),
        ("sync_tree", {"tree": COMB}, Scenario("sync_tree", 2, widths=(2, 1))),
        ("async_tree", {"k": 3, "fallback": "auto"}, Scenario("async_tree", 3, 3, "auto")),
        ("eagle3", {"k": 3}, Scenario("eagle3", 3, mode="sync")),
        ("eagle3", {"k": 3, "mode": "async", "f": 3}, Scenario("eagle3", 3, 3)),
        ("prompt_lookup", {"k": 3}, Scenario("prompt_lookup", 3)),
        ("cascade", {"second": {"strategy": "sync_chain", "k": 3}}, Scenario("cascade", 3)),
    ],
)  # fmt: skip
def test_the_built_in_ones_are_drawn_as_their_names_are(named: str, fields: dict[str, Any], scenario: Scenario):
    own = replace(registry.config(named, fields).scenario, rounds=200)
    assert simulate(MODEL, MACHINE, scenario=own) == simulate(MODEL, MACHINE, scenario=replace(scenario, rounds=200))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (OwnOverlap(), "own_overlap drafts while the target verifies"),
        (registry.config("sync_tree", {}), "likeliest path"),
        (registry.config("sync_tree", {"tree": {"kind": "dynamic"}}), "likeliest path"),
        (registry.config("cascade", {"second": "async_tree"}), "not of lookup and async"),
    ],
    ids=lambda value: getattr(value, "strategy_name", None),
)
def test_what_cannot_be_drawn_says_why(strategy: StrategyConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        _ = strategy.scenario


@pytest.mark.usefixtures("registered")
def test_a_registered_strategy_is_tuned_with_the_others():
    trace = Trace({}, rounds=[RoundRecord(0, 0, 1, [SequenceRound(0, 5, [], [], [], 0, 9, 0.5, 1, "none")])])
    found = [one for one in grid(trace) if one.strategy.startswith("own_")]
    assert {one.strategy for one in found} == {"own_chain", "own_lookup", "own_overlap"}
    scorer = Scorer(MODEL, TuneMachine(MACHINE, MACHINE, 0.0, "full"), [], 1)
    scores = {one.strategy: scorer.score(one, 250) for one in found}
    assert scores["own_lookup"] is None and scores["own_overlap"] is None  # no text to replay, no way to draw
    same = scorer.score(Candidate("sync_chain", {"k": 4}), 250)
    assert scores["own_chain"] is not None and same is not None
    assert scores["own_chain"].predicted_tokens_per_second == same.predicted_tokens_per_second


def test_the_command_line_draws_a_strategy_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawable: Trace
):
    (tmp_path / "own_strategy_module.py").write_text(
        textwrap.dedent("""
        from typing import ClassVar
        import ssd_lab

        @ssd_lab.register_strategy
        class Mine(ssd_lab.SequenceStrategy):
            strategy_name: ClassVar[str] = "mine_on_the_command_line"
            k: int = 2
            lookahead = property(lambda self: self.k)

            def draft(self, context):
                return []
        """)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = str(tmp_path / "rounds.jsonl")
    drawable.save(path)
    options = ["--import", "own_strategy_module", "-s", "mine_on_the_command_line k=3", "--rounds", "50", "--json"]
    try:
        shown = json.loads(CliRunner().invoke(app, ["simulate", path, *options]).stdout)
    finally:
        registry._classes.pop("mine_on_the_command_line", None)
        sys.modules.pop("own_strategy_module", None)
    assert shown["strategy"] == "mine_on_the_command_line"


@pytest.fixture
def drawable() -> Trace:
    ranks = [0, 0, 0, 1, 0, 2, 0, 5, 0, 11] * 8
    return Trace({}, rounds=[
        RoundRecord(i, i, i + 1, [
            SequenceRound(0, 5, [1] * 3, [0.5] * 3, [0.5] * 3, i % 4, 9, 0.5, i % 4 + 1, "jit", cache_hit=False,
                          recovery_rank=rank)
        ]) for i, rank in enumerate(ranks)
    ])  # fmt: skip
