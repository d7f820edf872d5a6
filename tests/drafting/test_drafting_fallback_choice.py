"""Which fallback answers misses, and when that can be told before it is known how many rows missed."""

from __future__ import annotations

import pytest

from ssd_lab.learning.fallback_choice import FallbackChooser, FallbackKind, FixedChoice, MeasuredRound

BATCH = 4


def measured(kind: FallbackKind, missed: int, *, jit_s: float) -> MeasuredRound:
    """Rounds of 1 s and 2 tokens a row. Drafting now gives missed rows 4 tokens and takes `jit_s`, a guess gives 1."""
    tokens, fallback_s = (4, jit_s) if kind == "jit" else (1, 0.0)
    return MeasuredRound(BATCH, missed, kind, 2 * BATCH, missed * tokens, 1.0, fallback_s)


def chooser_after(jit_s: float, *, asked: int = 8, revisit: int = 64) -> FallbackChooser:
    """One that has seen rounds of one missed row and of all."""
    chooser = FallbackChooser(explore=4, revisit=revisit)
    for number in range(asked):
        missed = BATCH if number % 2 else 1
        chooser.observe(measured(chooser.choose(BATCH, missed), missed, jit_s=jit_s))
    return chooser


@pytest.mark.parametrize(
    ("jit_s", "kind"),
    [(0.1, "jit"), (1.0, None), (4.0, "fast")],
    ids=["cheap: 3 tokens for 0.8", "3 tokens a row for 8 tokens: it depends on the rows", "dear: 12 tokens for 32"],
)
def test_what_is_better_for_one_row_and_for_all_is_foreseen(jit_s: float, kind: FallbackKind | None) -> None:
    chooser = chooser_after(jit_s)
    assert chooser.foreseen(BATCH) == kind
    chosen = {chooser.choose(BATCH, missed) for missed in range(1, BATCH + 1)}
    assert chosen == ({"jit", "fast"} if kind is None else {kind})


def test_nothing_is_foreseen_while_a_kind_is_tried_or_tried_again() -> None:
    assert FallbackChooser(explore=4).foreseen(1) is None
    chooser = chooser_after(4.0, asked=9, revisit=10)
    assert chooser.foreseen(BATCH) is None
    assert chooser.choose(BATCH, 1) == "jit"
    assert chooser.foreseen(BATCH) == "fast"


def test_a_fixed_choice_is_always_foreseen() -> None:
    assert FixedChoice("fast").foreseen(7) == "fast"
    assert FixedChoice("jit").foreseen(7) == "jit"
