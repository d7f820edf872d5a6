"""Answers to the exercises: worked out from first principles by code, with a word on the likely slips."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Judge = Callable[[Any], str | None]


@dataclass(frozen=True)
class Verdict:
    """What became of an answer. right is None where there is none yet."""

    exercise: str
    right: bool | None
    message: str

    def __repr__(self) -> str:
        mark = {True: "right", False: "not yet", None: "open"}[self.right]
        return f"{self.exercise} {mark}: {self.message}"

    def _repr_html_(self) -> str:
        sign, colour = {True: ("✓", "#009E73"), False: ("✗", "#D55E00"), None: ("…", "#777777")}[self.right]
        return (
            f'<div style="border-left:4px solid {colour};padding:.3em .8em" role="status">'
            f"<b>{sign} {html.escape(self.exercise)}</b> {html.escape(self.message)}</div>"
        )


@dataclass(frozen=True)
class Number:
    """An answer that is a number.

    right: works the number out. tolerance: how far off still counts, absolute. slips: from the name of a likely mistake
    to the number that it gives. praise: what to say when it is right.
    """

    right: Callable[[], float]
    praise: str
    tolerance: float = 0.005
    slips: Mapping[str, Callable[[], float]] = field(default_factory=dict)

    def judge(self, answer: Any) -> str | None:
        """None if right, else what to think about."""
        try:
            value = float(answer)
        except (TypeError, ValueError):
            return f"a number is wanted, not {type(answer).__name__}"
        if abs(value - self.right()) <= self.tolerance:
            return None
        for slip, wrong in self.slips.items():
            if math.isclose(value, wrong(), abs_tol=self.tolerance):
                return slip
        return "too large" if value > self.right() else "too small"


@dataclass(frozen=True)
class Choice:
    """An answer that is one of a few words. remarks: what to say to each wrong one."""

    right: Callable[[], str]
    praise: str
    remarks: Mapping[str, str] = field(default_factory=dict)

    def judge(self, answer: Any) -> str | None:
        """None if right, else what to think about."""
        word = str(answer).strip().lower()
        if word == self.right():
            return None
        known = ", ".join(sorted({self.right(), *self.remarks}))
        return self.remarks.get(word, f"one of these words is wanted: {known}")


@dataclass(frozen=True)
class Code:
    """An answer that is a function or a class: `test` tries it, and says what went wrong."""

    test: Judge
    praise: str

    def judge(self, answer: Any) -> str | None:
        """None if right, else what to think about; what the reader's own code raises is told, not raised."""
        if not callable(answer):
            return f"a function or a class is wanted, not {type(answer).__name__}"
        try:
            return self.test(answer)
        except Exception as error:  # the reader's code may raise anything
            return f"it raised {type(error).__name__}: {error}"


Exercise = Number | Choice | Code
