"""Notebook 0."""

from __future__ import annotations

from ssd_lab.notebooks.judging import Choice, Exercise, Number

EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: 2 + 1,
        "two guesses, and the token that the target wrote in place of the third",
        slips={
            "the target writes a token of its own in every round": lambda: 2,
            "only what was kept counts": lambda: 5,
        },
    ),
    Choice(
        lambda: "time",
        "a bad draft costs time; what is written is the target's all the same",
        {
            "text": "a guess stays only where the target would have written it",
            "both": "the text is the target's, whatever the draft guesses",
        },
    ),
)
