"""Notebook 6."""

from __future__ import annotations

from ssd_lab.notebooks.judging import Choice, Exercise, Number

_DRAFT, _COEFFICIENT = (0.5, 0.3, 0.2), 0.5


def _bent() -> list[float]:
    scaled = [_COEFFICIENT * _DRAFT[0], *_DRAFT[1:]]
    return [value / sum(scaled) for value in scaled]


EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: _bent()[0],
        "half of 0.5, over what is left of the sum",
        slips={"the rest must be scaled so that all sum to one": lambda: _COEFFICIENT * _DRAFT[0]},
    ),
    Number(
        lambda: sum(map(min, _DRAFT, _bent())),
        "the overlap of the target with what the draft now draws from",
        slips={
            "the guess is drawn from the bent distribution": lambda: 1.0,
            "that is the share of rejected guesses": lambda: 1 - sum(map(min, _DRAFT, _bent())),
        },
    ),
    Choice(
        lambda: "nothing",
        "all probability is on one token, and a factor on it is scaled away",
        {
            "more hits": "with all probability on one token there is nothing to move",
            "fewer hits": "with all probability on one token there is nothing to move",
        },
    ),
    Choice(
        lambda: "no",
        "it is drawn from p itself, and C bends only q",
        {"yes": "after k accepted tokens nothing was rejected: from which distribution does the target draw then?"},
    ),
)
