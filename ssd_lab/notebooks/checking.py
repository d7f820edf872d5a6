"""Is this the answer to an exercise?"""

from __future__ import annotations

from typing import Any

from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.notebooks.exercises import EXERCISES
from ssd_lab.notebooks.hints import HINTS
from ssd_lab.notebooks.journal import JOURNAL
from ssd_lab.notebooks.judging import Choice, Code, Exercise, Number, Verdict
from ssd_lab.notebooks.predicting import Said


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
    JOURNAL.tried(exercise, right=objection is None)
    return Verdict(exercise, objection is None, known.praise if objection is None else objection)


def hint(exercise: str) -> Said:
    """Where to look; asked again, how to begin. Raises ConfigError for an exercise that does not exist."""
    _known(exercise)
    steps = HINTS[exercise]
    number = JOURNAL.hinted(exercise, len(steps))
    more = "; ask again for another" if number < len(steps) else ""
    return Said(f"Hint {number} of {len(steps)} for {exercise}{more}", steps[number - 1])


def tally() -> Table:
    """What you have tried since the kernel started."""
    return JOURNAL.tally()


def _known(exercise: str) -> Exercise:
    if exercise not in EXERCISES:
        raise ConfigError(f"no exercise {exercise!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[exercise]
