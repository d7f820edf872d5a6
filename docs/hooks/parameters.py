"""Docstrings explain parameters and fields in running text, `name: what it is.`; on the site each has its own line."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

import griffe

_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_NAMED = re.compile(r"(?:^|(?<=[.;:)\]] ))(\w+(?:(?:, | and | / )\w+)*): ")
_BETWEEN = re.compile(", | and | / ")
_THEN = re.compile(r"(?<=[.;]) (?=(?:Raises|Returns|Ctrl-C) )")
_SHAPES = "Args: "  # of pure maths: `name [shape], what it is; name ...`


class ParameterLists(griffe.Extension):
    """Turns "first: this. second: that." into a list, where these are names of the function's or class's own."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Of a function the parameters, without their stars."""
        _rewrite(func, {parameter.name.lstrip("*") for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Of a class its attributes, and what making one takes."""
        made = cls.members.get("__init__")
        parameters = made.parameters if isinstance(made, griffe.Function) else ()
        _rewrite(cls, {*cls.members, *(parameter.name.lstrip("*") for parameter in parameters)})


def _rewrite(documented: griffe.Object, names: set[str]) -> None:
    if documented.docstring is not None:
        paragraphs = _PARAGRAPHS.split(documented.docstring.value)
        documented.docstring.value = "\n\n".join(listed(paragraph, names) for paragraph in paragraphs)


def listed(paragraph: str, names: set[str]) -> str:
    """The paragraph with a list in place of what follows the first of these names and its colon; else as it was."""
    line, *then = _THEN.split(" ".join(paragraph.split()), maxsplit=1)
    if line.startswith(_SHAPES):
        lead, items = "", _shapes(line.removeprefix(_SHAPES), names)
    else:
        found = [match for match in _NAMED.finditer(line) if set(_BETWEEN.split(match[1])) <= names]
        if not found:
            return paragraph
        lead = line[: found[0].start()].strip(" ;")
        ends = [*(match.start() for match in found[1:]), len(line)]
        items = [f"`{match[1]}`: {line[match.end() : end]}" for match, end in zip(found, ends, strict=True)]
    return "\n\n".join(filter(None, [lead, "\n".join(f"- {item.strip(' ;')}" for item in items), *then]))


def _shapes(text: str, names: set[str]) -> list[str]:
    items: list[str] = []
    for part in text.split("; "):
        words = part.replace(":", "").split(" ")
        own = list(takewhile(lambda word: word.strip(",") in names, words))
        if own:
            items.append(f"`{' '.join(own).strip(',')}`" + part[len(" ".join(own)) - own[-1].endswith(",") :])
        else:
            items.append(f"{items.pop()}; {part}" if items else part)
    return items
