"""Notebook 1."""

from __future__ import annotations

import math
from collections.abc import Callable

from ssd_lab.notebooks.judging import Choice, Code, Exercise, Number
from ssd_lab.trace import RoundRecord, SequenceRound, Trace

_ACCEPTED = ((2, 4), (0,), (3, 1, 4))  # by round, the accepted lengths of its sequences


def _trace() -> Trace:
    def row(request_id: int, accepted: int) -> SequenceRound:
        return SequenceRound(request_id, 0, [1, 2, 3, 4], [0.5] * 4, [0.5] * 4, accepted, 5, 0.5, accepted + 1, "draft")

    rounds = [RoundRecord(i, i, i + 1, [row(j, a) for j, a in enumerate(many)]) for i, many in enumerate(_ACCEPTED)]
    return Trace(meta={}, rounds=rounds)


def _tokens_per_round(answer: Callable[[Trace], float]) -> str | None:
    each = [accepted + 1 for many in _ACCEPTED for accepted in many]
    got = float(answer(_trace()))
    if math.isclose(got, sum(each) / len(each)):
        return None
    if math.isclose(got, sum(each) / len(each) - 1):
        return "the recovery token counts too"
    if math.isclose(got, sum(each) / len(_ACCEPTED)):
        return (
            "that divides by rounds of the batch; divide by sequences and rounds, a round of three sequences is three"
        )
    return f"for my trace it gave {got:g}; every sequence of every round counts once"


EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: 4 + 1,
        "four guesses and the recovery token",
        slips={"do not forget the token that the target adds": lambda: 4, "two guesses were rejected": lambda: 7},
    ),
    Choice(
        lambda: "tokens_per_second",
        "the other two belong to models, prompts and seeds, not to the machine",
        {
            "tokens_per_round": "the same guesses are made and the same ones accepted, however fast that goes",
            "acceptance_rate": "the same guesses are made and the same ones accepted, however fast that goes",
        },
    ),
    Code(_tokens_per_round, "this is `metrics.tokens_per_round`"),
)
