"""Notebook 8."""

from __future__ import annotations

from typing import Any

from ssd_lab.errors import SsdLabError
from ssd_lab.notebooks.judging import Code, Exercise, Number

_PROMPTS = (
    "Write a Python function that returns the largest number in a list.",
    "Tell me about coral reefs.",
)
_WANTED = 1.5


def _beats(strategy: Any) -> str | None:
    import ssd_lab  # here, because a strategy needs the engine and the other exercises do not

    options: dict[str, Any] = {"max_tokens": 256, "ignore_eos": True, "progress": False}
    try:
        ours = ssd_lab.run(list(_PROMPTS), strategy=strategy(k=4), **options)
    except SsdLabError as error:
        return str(error)
    plain = ssd_lab.run(list(_PROMPTS), strategy="autoregressive", **options)
    if [o.token_ids for o in ours.outputs] != [o.token_ids for o in plain.outputs]:
        return "the text differs from the autoregressive text"
    reached = ours.metrics.tokens_per_round or 1.0
    return None if reached >= _WANTED else f"it reaches {reached:.2f} tokens per round; {_WANTED} are wanted"


EXERCISES: tuple[Exercise, ...] = (
    Number(
        lambda: 1,
        "every round is an autoregressive step",
        slips={"each round still gives the target's own token": lambda: 0},
    ),
    Number(
        lambda: min(1.0, 0.3 / 1.0),
        "its q is one on that token, so min(1, p/q) = p",
        slips={"the coin is min(1, p/q), and q is one": lambda: 1.0},
    ),
    Code(_beats, "three tokens in two rounds, for the price of a list search"),
)
