"""The number that a text gives as its answer, and whether it is the reference's."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_NUMBER = r"[-+]?\$?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_MARKED = re.compile(rf"####\s*({_NUMBER})")
_BOXED = re.compile(rf"\\boxed\s*\{{\s*({_NUMBER})")
_ANY = re.compile(_NUMBER)


def answer(text: str) -> tuple[Decimal | None, str]:
    """The text's answer and how it was found: `####` (the first, because a text that runs on past its end may begin
    another question), `boxed` (the last), `last number`, or `none`."""
    marked = _MARKED.search(text)
    if marked:
        return _value(marked[1]), "####"
    boxed = _BOXED.findall(text)
    if boxed:
        return _value(boxed[-1]), "boxed"
    numbers = _ANY.findall(_without_joined_minus(text))
    return (_value(numbers[-1]), "last number") if numbers else (None, "none")


def _without_joined_minus(text: str) -> str:
    """A minus between two numbers ("7-3") is no sign."""
    return re.sub(r"(?<=[\w)])[-+](?=\$?[\d.])", " ", text)


def _value(number: str) -> Decimal | None:
    try:
        return Decimal(re.sub(r"[$,\s]", "", number)).normalize()
    except InvalidOperation:  # digits of another script are digits to a regular expression
        return None
