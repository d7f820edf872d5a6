"""The grid is made from the schemas: everything is in it, new things enter by themselves, refusals have reasons."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssd_lab.check.configurations import Configurations, configurations
from ssd_lab.strategies import Context, SequenceStrategy, registry


@pytest.fixture(scope="module")
def everything() -> Configurations:
    return configurations()


def test_every_accepted_configuration_is_one(everything: Configurations):
    for configuration in everything.accepted:
        if "head" not in configuration.fields:
            registry.config(configuration.strategy, configuration.fields)
    labels = [configuration.label for configuration in everything.accepted]
    assert len(set(labels)) == len(labels)


def test_every_strategy_component_and_choice_is_in_it(everything: Configurations):
    assert {configuration.strategy for configuration in everything.accepted} == set(registry.all())
    # a strategy that never drafts cannot be a cascade's first
    assert "cascade first=autoregressive" in everything.missing
    own = {name for name, strategy in registry.all().items() if strategy.__module__.startswith("ssd_lab.strategies.")}
    of_others = {f"cascade first={name}" for name in registry.all().keys() - own}  # which other tests registered
    assert set(everything.missing) - of_others == {"cascade first=autoregressive"}


def test_every_schedule_meets_every_fallback(everything: Configurations):
    own = [c.fields for c in everything.accepted if c.strategy == "async_tree"]
    kinds = {fields["fan_out"]["kind"] for fields in own if "fan_out" in fields}
    assert kinds == {"uniform", "explicit", "geometric", "adaptive"}
    assert any(fields.get("fan_out", {}).get("by_confidence") is False for fields in own)
    fallbacks = {str(fields.get("fallback")) for fields in own}
    schedules = {str(fields.get("fan_out")) for fields in own}
    assert len(fallbacks) == 1 + 3 + 3  # jit; fast and auto with each source
    met = {(str(fields.get("fan_out")), str(fields.get("fallback"))) for fields in own}
    assert met == set(itertools.product(schedules, fallbacks))


def test_every_knob_value_meets_every_other_knobs(everything: Configurations):
    own = [c.fields for c in everything.accepted if c.strategy == "async_tree"]
    for first, second in itertools.combinations(["saguaro_c", "draft_temperature", "dynamic_lookahead"], 2):
        values = [{fields.get(name) for fields in own} for name in (first, second)]
        met = {(fields.get(first), fields.get(second)) for fields in own}
        assert met == set(itertools.product(*values))


def test_the_plain_strategy_comes_first(everything: Configurations):
    first = next(c for c in everything.accepted if c.strategy == "async_tree")
    assert first.fields == {"k": 3}


def test_refusals_come_with_the_strategys_own_reason(everything: Configurations):
    reasons = {(refusal.example.strategy, refusal.reason) for refusal in everything.refused}
    ours = "fallback belongs to mode='async', and mode is 'sync'"
    assert any(strategy == "eagle3" and reason.startswith(ours) for strategy, reason in reasons)
    assert any(strategy == "async_tree" and "dynamic lookahead" in reason for strategy, reason in reasons)
    assert all(refusal.count > 0 for refusal in everything.refused)


class Left(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["left"] = "left"
    how: Literal["slow", "quick"] = "slow"


class Right(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["right"] = "right"
    steps: int  # no default, and no value is known for it


class Walk(SequenceStrategy):
    """A strategy that nobody has heard of."""

    strategy_name: ClassVar[str] = "walk"
    way: Annotated[Left | Right, Field(discriminator="kind")] = Left()
    back: bool = False
    foot: Literal["bare", "shod"] = "bare"

    @model_validator(mode="after")
    def _fits(self) -> Walk:
        if self.back and self.foot == "shod":
            raise ValueError("backwards only on bare feet")
        return self

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> list[int]:
        return [1]


def test_a_new_strategy_enters_by_itself():
    found = configurations({"walk": Walk})
    own = [c.fields for c in found.accepted]
    assert {str(fields.get("way")) for fields in own} == {"None", "{'kind': 'left', 'how': 'quick'}"}
    assert {(fields.get("foot", "bare"), fields.get("back", False)) for fields in own} == {
        ("bare", False), ("bare", True), ("shod", False),
    }  # fmt: skip
    assert "backwards only on bare feet" in {refusal.reason for refusal in found.refused}


def test_given_fields_stay_and_the_others_are_varied():
    found = configurations({"walk": Walk}, {"walk": {"foot": "shod"}})
    assert {fields["foot"] for fields in (c.fields for c in found.accepted)} == {"shod"}
    assert {str(c.fields.get("way")) for c in found.accepted} == {"None", "{'kind': 'left', 'how': 'quick'}"}


def test_a_component_that_cannot_be_filled_in_is_not_left_out_silently():
    found = configurations({"walk": Walk})
    assert found.missing == ["walk way=right"]
    assert any(refusal.reason == "Field required" for refusal in found.refused)


def test_a_strategy_that_is_not_exact_is_refused():
    class Lossy(Walk):
        exact: ClassVar[bool] = False

    found: Any = configurations({"lossy": Lossy})
    assert found.accepted == []
    assert found.refused[0].reason == "it declares exact = False"
