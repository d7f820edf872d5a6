"""What is checked: a pair of models, loaded once, and strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ssd_lab import demo
from ssd_lab.assembly.build import resolve_device
from ssd_lab.config import EngineConfig
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.strategies.heads import with_head
from ssd_lab.strategies.registry import listed

BASELINE = "autoregressive"
StrategyLike = str | dict[str, Any] | StrategyConfig


@dataclass(frozen=True)
class Subject:
    """A strategy under test. label: what reports call it. fields: what was given of it, as it was written."""

    label: str
    config: StrategyConfig
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Models:
    """A target, its draft if there is one, and engine fields for every run. head: the folder of an EAGLE3 head for the
    target (None: the one that is known for it).
    """

    name: str
    target: LoadedModel
    draft: LoadedModel | None
    head: str | None = None
    chat: bool | None = None
    engine: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        target: LoadedModel | str | None,
        draft: LoadedModel | str | None,
        *,
        name: str = "models",
        dtype: str = "auto",
        chat: bool | None = None,
        progress: bool = True,
        **engine: Any,
    ) -> Models:
        """Load what is not loaded; None for both takes the bundled pair."""
        device = str(resolve_device(engine.get("device", "auto")))

        def loaded(model: LoadedModel | str) -> LoadedModel:
            return load_model(model, dtype=dtype, device=device, progress=progress) if isinstance(model, str) else model

        if target is None:
            target, draft = str(demo.TARGET), str(demo.DRAFT) if draft is None else draft
        its_draft = None if draft is None else loaded(draft)
        return cls(name, loaded(target), its_draft, chat=chat, engine={**engine, "dtype": dtype})

    def llm(self, strategy: StrategyConfig, *, max_batch: int, record_details: int = 0) -> LLM:
        """An engine for this strategy. Close it."""
        return LLM(
            self.target,
            self.draft,
            strategy if self.head is None else with_head(strategy, self.head),
            chat=self.chat,
            progress=False,
            **{**self.engine, "max_batch": max_batch, "record": True, "record_details": record_details},
        )


def resolve(strategies: Sequence[StrategyLike]) -> dict[str, StrategyConfig]:
    """Configs by the label they are shown with."""
    resolved: dict[str, StrategyConfig] = {}
    for strategy, fields in listed(strategies):
        config = registry.config(strategy, fields)
        label = config.strategy_name
        shown = {name: getattr(config, name) for name in sorted(config.model_fields_set)}
        if shown:
            label += " (" + ", ".join(f"{name}={value}" for name, value in shown.items()) + ")"
        resolved[label] = config
    return resolved


def with_knobs(strategies: Sequence[StrategyLike], knobs: dict[str, Any]) -> tuple[list[StrategyLike], dict[str, Any]]:
    """Give each strategy the knobs that it has (its own values win); the rest are engine fields.

    Raises ConfigError for a knob that neither a strategy of the list nor the engine has.
    """
    entries: list[StrategyLike] = []
    used: set[str] = set()
    known = registry.all()
    for entry in strategies:
        if isinstance(entry, StrategyConfig):
            entries.append(entry)
            continue
        own = dict(entry) if isinstance(entry, dict) else {"strategy": entry}
        cls = known.get(own["strategy"])
        fitting = {name: value for name, value in knobs.items() if cls is not None and name in cls.model_fields}
        used |= fitting.keys()
        entries.append({**fitting, **own})
    engine = {name: value for name, value in knobs.items() if name in EngineConfig.model_fields}
    unknown = sorted(knobs.keys() - used - engine.keys())
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r}: none of the strategies has it, nor has the engine")
    return entries, engine


def takes_draft(strategies: dict[str, StrategyConfig]) -> bool:
    """Does any of them need a draft model?"""
    return any(config.uses_draft for config in strategies.values())
