"""Notebook 4."""

from __future__ import annotations

from ssd_lab.notebooks.judging import Choice, Exercise, Number

_VERIFY_MS, _TREE_MS, _JIT_MS, _HITS = 10.0, 6.0, 6.0, 0.8


def _round_ms(all_hit: float) -> float:
    return all_hit * max(_VERIFY_MS, _TREE_MS) + (1 - all_hit) * (_VERIFY_MS + _JIT_MS)


EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: (6 + 1) * 3,
        "seven accepted lengths, 0 to 6, with three candidates each",
        slips={
            "the accepted length can be 0 as well": lambda: 6 * 3,
            "those are the tokens in the branches; how many branches?": lambda: (6 + 1) * 3 * 6,
        },
    ),
    Number(
        lambda: _round_ms(_HITS),
        "the tree hides behind the verification; only misses cost",
        tolerance=0.05,
        slips={
            "after a hit the tree runs beside the verification, not after it": lambda: _VERIFY_MS + _TREE_MS,
            "four of five lookups hit": lambda: _round_ms(1 - _HITS),
        },
    ),
    Number(
        lambda: _round_ms(_HITS**4),
        "all four must hit for a short round",
        tolerance=0.05,
        slips={
            "the round is short only if all four hit": lambda: _round_ms(_HITS),
            "that would need all four to miss": lambda: _round_ms(1 - (1 - _HITS) ** 4),
        },
    ),
    Choice(
        lambda: "missed",
        "the others already have their tokens; they only wait",
        {"all": "the prepared tokens of the others are as good as before"},
    ),
)
