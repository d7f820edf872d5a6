"""Strategy knobs as text: `--set fan_out.kind=explicit`, `-s "async_tree f=1 fallback=fast"`."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ssd_lab.errors import ConfigError, SsdLabError


def parse_value(text: str) -> Any:
    """JSON if it is JSON, else the text itself (`fast` needs no quotes)."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["k=6", "fan_out.kind=uniform", "fan_out.f=2"]` as nested dictionaries."""
    fields: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        path = name.strip().split(".")
        if not equals or not all(path):
            raise ConfigError(f"{assignment!r} is no assignment: write name=value, for example k=6 or fan_out.f=2")
        place = fields
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{assignment!r}: {part!r} was given a value already, so it has no fields")
        place[path[-1]] = parse_value(value.strip())
    return fields


def parse_strategy(text: str) -> dict[str, Any]:
    """A name, or a name followed by its fields, as `async_tree f=1 fallback=fast`: `strategy` and those fields."""
    try:
        name, *assignments = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no strategy: write a name, then fields such as k=6") from error
    return {"strategy": name, **parse_assignments(assignments)}


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None: what the user left out is left to the library."""
    return {name: value for name, value in values.items() if value is not None}


def merged(knobs: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Options such as `--k` together with `--set`; naming one twice is an error."""
    fields = parse_assignments(assignments)
    twice = sorted(knobs.keys() & fields.keys())
    if twice:
        raise ConfigError(f"{', '.join(twice)} was given twice, as an option and by --set")
    return {**knobs, **fields}


def import_modules(names: Iterable[str]) -> list[ModuleType]:
    """Import modules of the user's. The current folder is searched too, after everything else: no file there takes the
    place of a module that is installed.
    """
    found = []
    for name in names:
        if not {"", os.getcwd()} & {*sys.path}:
            sys.path.append(os.getcwd())
        try:
            found.append(importlib.import_module(name))
        except SsdLabError:
            raise
        except Exception as error:  # the user's module may do anything
            raise ConfigError(f"--import {name}: {type(error).__name__}: {error}") from error
    return found
