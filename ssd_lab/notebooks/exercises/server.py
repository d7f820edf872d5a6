"""Notebook 11."""

from __future__ import annotations

from ssd_lab.notebooks.judging import Choice, Exercise, Number

_ROUNDS, _ACCEPTED, _LATE = 400, 1000, 20
_DRAFTS, _TAKEN = 250, 600

EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: _ROUNDS + _ACCEPTED - _LATE,
        "each round gives its accepted draft tokens and one of the target's own, and late ones are dropped",
        slips={
            "what was accepted behind the end is in no text": lambda: _ROUNDS + _ACCEPTED,
            "each round adds a token of the target's own": lambda: _ACCEPTED - _LATE,
        },
    ),
    Number(
        lambda: 1 + _TAKEN / _DRAFTS,
        "accepted tokens of a draft, and the target's own token",
        slips={"the target's own token counts too": lambda: _TAKEN / _DRAFTS},
    ),
    Choice(
        lambda: "batch",
        "texts wait for a place in the batch while most blocks are free",
        {"blocks": "70 percent of them are free"},
    ),
)
