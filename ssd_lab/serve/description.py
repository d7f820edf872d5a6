"""What `/openapi.json` says beyond the fields' own descriptions: the models that are here, limits, and answers."""

from __future__ import annotations

from typing import Any

from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.served import ServedModels

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_REQUESTS = ("ChatRequest", "CompletionRequest")


def complete(description: dict[str, Any], models: ServedModels, config: ServeConfig) -> None:
    """Write into an OpenAPI description what a client of this server can know beforehand."""
    names = [card["id"] for card in models.cards()]
    if not names:  # they could not be loaded, which somebody else says
        return
    for request in _REQUESTS:
        fields = description["components"]["schemas"][request]["properties"]
        fields["model"]["enum"] = names
        _limit(fields["n"], config.max_choices)
        for name in {"max_tokens", "max_completion_tokens"} & fields.keys():
            if config.max_output is not None:  # else what is too much is cut to what fits
                _limit(fields[name], config.max_output)
    description["paths"]["/v1/models/{name}"]["get"]["parameters"][0]["schema"]["enum"] = names


def answer_schema(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    """Of a whole answer. kind: its `object`; choice: what a choice holds besides its place and its end."""
    own = {"index": {"type": "integer"}, "finish_reason": {"enum": ["stop", "length"]}, **choice}
    counts = {"type": "object", "properties": {name: {"type": "integer"} for name in _COUNTS}, "required": [*_COUNTS]}
    return _object(
        id={"type": "string"},
        object={"const": kind},
        created={"type": "integer"},
        model={"type": "string"},
        choices={"type": "array", "items": _object(**own), "minItems": 1},
        usage=counts,
        metrics={"type": ["object", "null"]},
    )


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


def _limit(field: dict[str, Any], most: int) -> None:
    number = next(branch for branch in field["anyOf"] if branch["type"] == "integer")
    number["maximum"] = min(most, number.get("maximum", most))


MESSAGE = {"message": _object(role={"const": "assistant"}, content={"type": "string"}, refusal={"type": "null"})}
TEXT = {"text": {"type": "string"}, "logprobs": {"type": ["object", "null"]}}
