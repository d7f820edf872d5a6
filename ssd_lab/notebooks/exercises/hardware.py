"""Notebook 9."""

from __future__ import annotations

from ssd_lab.notebooks.judging import Exercise, Number

_PARAMETERS, _BYTES_EACH, _BYTES_PER_S = 3e9, 2, 400e9

EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: _PARAMETERS * _BYTES_EACH / _BYTES_PER_S * 1e3,
        "every weight is read once for each step",
        tolerance=0.05,
        slips={
            "a bfloat16 number has two bytes": lambda: _PARAMETERS / _BYTES_PER_S * 1e3,
            "that is in seconds": lambda: _PARAMETERS * _BYTES_EACH / _BYTES_PER_S,
        },
    ),
    Number(
        lambda: 20 // 3,
        "k = floor(verification / tree step)",
        slips={
            "one more step would still be running when the verification ends": lambda: 7,
            "whole steps": lambda: 20 / 3,
        },
    ),
    Number(
        lambda: (1 + 0.5) / max(1, 0.5),
        "(1 + T) / max(1, T)",
        slips={"the draft hides completely: compare 1 + T with 1": lambda: 2.0},
    ),
    Number(
        lambda: 0.9**8,
        "0.9 to the power 8: more than half of the rounds wait",
        slips={"that is for one sequence": lambda: 0.9, "that is the share with a miss": lambda: 1 - 0.9**8},
    ),
)
