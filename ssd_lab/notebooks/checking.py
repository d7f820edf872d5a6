"""Is this the answer to an exercise?"""

from __future__ import annotations

from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.notebooks.exercises import EXERCISES
from ssd_lab.notebooks.judging import Choice, Code, Exercise, Number, Verdict


def solution(exercise: str) -> Any:
    """The answer, for teachers: a number or a word; None for one in code.

    Raises ConfigError for an exercise that does not exist.
    """
    known = _known(exercise)
    return None if isinstance(known, Code) else known.right()


def check(exercise: str, answer: Any = ...) -> Verdict:
    """Is this the answer to the exercise, such as `check("02-1", 0.8)`? Without an answer: what is wanted.

    Raises ConfigError for an exercise that does not exist.
    """
    known = _known(exercise)
    if answer is ...:
        wanted = {Number: "a number", Choice: "a word", Code: "a function or a class"}[type(known)]
        return Verdict(exercise, None, f"put {wanted} in place of the dots and run the cell again")
    objection = known.judge(answer)
    return Verdict(exercise, objection is None, known.praise if objection is None else objection)


def _known(exercise: str) -> Exercise:
    if exercise not in EXERCISES:
        raise ConfigError(f"no exercise {exercise!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[exercise]
