"""Notebook 2."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ssd_lab.notebooks.judging import Code, Exercise, Number

_TARGET, _DRAFT = (0.5, 0.3, 0.2), (0.3, 0.1, 0.6)
_DRAWS = 20_000
_FAR = 13.82  # chi-square with two degrees of freedom exceeds this once in a thousand

Emit = Callable[[Sequence[float], Sequence[float], int, float, float], int]


def _kept() -> float:
    return sum(map(min, _TARGET, _DRAFT))


def _residual() -> list[float]:
    return [max(p - q, 0.0) for p, q in zip(_TARGET, _DRAFT, strict=True)]


def _tokens(acceptance: float, k: int) -> float:
    return sum(acceptance**i for i in range(k + 1))


def _follows_target(emit: Emit) -> str | None:
    generator = random.Random(2)
    counts = [0, 0, 0]
    for _ in range(_DRAWS):
        token = generator.choices(range(3), _DRAFT)[0]
        got = emit(list(_TARGET), list(_DRAFT), token, generator.random(), generator.random())
        if got not in (0, 1, 2):
            return f"it gave {got!r}; a token is 0, 1 or 2 here"
        counts[int(got)] += 1
    expected = [p * _DRAWS for p in _TARGET]
    if sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True)) < _FAR:
        return None
    shares = ", ".join(f"{count / _DRAWS:.3f}" for count in counts)
    return f"the shares are {shares} and should be 0.5, 0.3, 0.2: chance alone does that less than once in a thousand"


EXERCISES: tuple[Exercise, ...] = (
    Number(
        _kept,
        "the overlap of the two distributions",
        slips={
            "that is the share of rejected guesses": lambda: 1 - _kept(),
            "that is the chance that two independent draws agree; the coin is kinder": lambda: sum(
                p * q for p, q in zip(_TARGET, _DRAFT, strict=True)
            ),
        },
    ),
    Number(
        lambda: _residual()[0] / sum(_residual()),
        "two tokens lack 0.2 each, so they share the recovery evenly",
        slips={
            "that is the target's own probability; the residual is what its guesses did not deliver": lambda: 0.5,
            "the residual must be scaled to sum to one": lambda: _residual()[0],
        },
    ),
    Number(
        lambda: _tokens(0.8, 4),
        "1 + 0.8 + 0.64 + ...: the sum from power 0 to k",
        slips={
            "add the target's own token": lambda: _tokens(0.8, 4) - 1,
            "a guess counts only if all before it were kept": lambda: 1 + 4 * 0.8,
            "the sum goes to the power k, not k - 1": lambda: _tokens(0.8, 3),
        },
    ),
    Code(_follows_target, "20,000 draws cannot tell it from the target"),
)
