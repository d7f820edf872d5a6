"""A strategy as a field of another one: a name, a dictionary with `strategy` and its fields, or a ready config."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from ssd_lab.errors import ConfigError
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.registry import registry


def _resolve(value: Any) -> StrategyConfig:
    fields = dict(value) if isinstance(value, dict) else {}
    named = fields.pop("strategy", None) if isinstance(value, dict) else value
    if not isinstance(named, str | StrategyConfig):
        raise ValueError("give a strategy's name, or a dictionary with 'strategy' and its fields")
    try:
        return registry.config(named, fields)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _dump(config: StrategyConfig) -> dict[str, Any]:
    return {"strategy": config.strategy_name, **config.model_dump(mode="json")}


NestedStrategy = Annotated[
    StrategyConfig,
    PlainValidator(_resolve),
    PlainSerializer(_dump),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "required": ["strategy"]}]}),
]
