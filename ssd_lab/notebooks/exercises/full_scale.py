"""Notebook 10."""

from __future__ import annotations

from ssd_lab.notebooks.judging import Choice, Exercise, Number

_VERIFY_MS, _STEP_MS, _K, _HITS, _TOKENS = 11.45, 2.54, 6, 0.85, 4.3


def _async_round_ms(hits: float) -> float:
    tree = _K * _STEP_MS
    return hits * max(_VERIFY_MS, tree) + (1 - hits) * (_VERIFY_MS + tree)


EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: _TOKENS / (_VERIFY_MS + _K * _STEP_MS) * 1e3,
        "near the published 162",
        tolerance=0.6,
        slips={
            "there are six draft steps": lambda: _TOKENS / (_VERIFY_MS + _STEP_MS) * 1e3,
            "that is without the drafting": lambda: _TOKENS / _VERIFY_MS * 1e3,
        },
    ),
    Number(
        lambda: _TOKENS / _async_round_ms(_HITS) * 1e3,
        "near the published 256",
        tolerance=0.6,
        slips={
            "six tree steps take longer than the verification": lambda: (
                _TOKENS / (_HITS * _VERIFY_MS + (1 - _HITS) * (_VERIFY_MS + _K * _STEP_MS)) * 1e3
            ),
            "15 of 100 lookups miss": lambda: _TOKENS / _async_round_ms(1.0) * 1e3,
        },
    ),
    Choice(
        lambda: "no",
        "intervals of two separate runs leave out what the machine did between them: run both in turns",
        {"yes": "what else may have changed between the two runs?"},
    ),
)
