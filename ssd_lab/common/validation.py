"""Making a pydantic model of what a caller gave, or saying in one line what is wrong with it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ssd_lab.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], fields: dict[str, Any], *, name: str, others: Iterable[str] = ()) -> Model:
    """The model with these fields. name: what it is called in a message. others: fields that may be meant and belong
    elsewhere, for the hint.

    Raises ConfigError that says for each wrong field what was given and what is allowed.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        known = list(model.model_fields)
        raise ConfigError(f"{name}: {'; '.join(_problems(error, known, [*known, *others]))}") from None


def _problems(error: ValidationError, known: list[str], near: list[str]) -> list[str]:
    parts = []
    for problem in error.errors():
        place, message = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(problem["loc"][-1]), near, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            parts.append(f"unknown field {place!r}{hint}; its fields are {', '.join(known) or 'none'}")
        elif problem["type"] == "missing":
            parts.append(f"{place} is missing in {json.dumps(problem['input'], default=str)}")
        else:
            given = json.dumps(problem["input"], default=str)
            if problem["type"] == "model_attributes_type":  # a word where a kind with fields of its own is wanted
                word = isinstance(problem["input"], str) and problem["input"].isidentifier()
                kind = given if word else '"..."'
                message = f'Input should be a dictionary of a kind and its fields, such as {{"kind": {kind}, ...}}'
            parts.append(f"{place}={given}: {message}" if place else message)  # or of the fields together
    return parts
