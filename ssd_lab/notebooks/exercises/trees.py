"""Notebook 3."""

from __future__ import annotations

from ssd_lab.notebooks.judging import Choice, Exercise, Number

_FIRST, _SECOND = 0.6, 0.2
_TARGET, _DRAFT, _REJECTED, _SECOND_CHILD = (0.5, 0.3, 0.2), (0.1, 0.1, 0.8), 2, 1


def _second_child_kept() -> float:
    residual = [max(p - q, 0.0) for p, q in zip(_TARGET, _DRAFT, strict=True)]
    left = [0.0 if token == _REJECTED else q for token, q in enumerate(_DRAFT)]
    return min(1.0, residual[_SECOND_CHILD] / sum(residual) / (left[_SECOND_CHILD] / sum(left)))


EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: 4 + 4 * 2 + 4 * 2 * 1,
        "4 + 8 + 8 nodes, all verified in one forward",
        slips={
            "that is the deepest level alone": lambda: 4 * 2 * 1,
            "each node has that many children, not each level": lambda: 4 + 2 + 1,
        },
    ),
    Number(
        lambda: _FIRST + _FIRST**2,
        "the chain: 0.6 + 0.36, more than the 0.8 of two siblings",
        slips={
            "that is the pair of siblings; a chain gives more here": lambda: _FIRST + _SECOND,
            "the second node counts only if the first was kept": lambda: 2 * _FIRST,
        },
    ),
    Number(
        _second_child_kept,
        "the residual against what is left of q: (1/3) / (1/2)",
        slips={
            "p and q have changed after the rejection": lambda: min(1.0, 0.3 / 0.1),
            "the residual must be scaled to sum to one": lambda: 0.2 / 0.5,
            "q loses the rejected token, and the rest is scaled to sum to one": lambda: 1 / 3,
        },
    ),
    Choice(
        lambda: "certain",
        "it keeps nodes because they are likely, so what it keeps no longer follows q",
        {"drawn": "which drawn tokens are kept depends on the tokens: they no longer follow q"},
    ),
)
