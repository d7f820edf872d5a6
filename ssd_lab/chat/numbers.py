"""What answers took, in a line and in a table."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_lab.chat.pieces import AnswerNumbers
from ssd_lab.chat.session import Turn
from ssd_lab.display.tables import Side, Table

SHOWN_TURNS = 20
_COLUMNS: tuple[tuple[str, Side], ...] = (
    ("answer", "right"), ("strategy", "left"), ("tokens", "right"), ("tokens/s", "right"), ("tokens/round", "right"),
    ("acceptance", "right"), ("cache hits", "right"), ("first token", "right"), ("end", "left"),
)  # fmt: skip
_ENDS = {"length": "cut at max_tokens", "cancelled": "stopped"}


def line_of(numbers: AnswerNumbers) -> str:
    """`42 tokens, 85.3 tokens/s, acceptance 71 %, 3.20 tokens/round, cache hits 80 %`; what is unknown is left out."""
    parts = [f"{numbers.num_tokens} token{'' if numbers.num_tokens == 1 else 's'}"]
    parts += [f"{numbers.tokens_per_second:.1f} tokens/s"] if numbers.tokens_per_second is not None else []
    parts += [f"acceptance {numbers.acceptance_rate:.0%}"] if numbers.acceptance_rate is not None else []
    parts += [f"{numbers.tokens_per_round:.2f} tokens/round"] if numbers.tokens_per_round is not None else []
    parts += [f"cache hits {numbers.cache_hit_rate:.0%}"] if numbers.cache_hit_rate is not None else []
    parts += [_ENDS[numbers.finish_reason]] if numbers.finish_reason in _ENDS else []
    return ", ".join([*parts, *numbers.notes])


def stats_table(turns: Sequence[Turn]) -> Table:
    """A row for each of the last answers."""
    shown = list(enumerate(turns, 1))[-SHOWN_TURNS:]
    rows = [
        (
            str(number),
            turn.numbers.strategy,
            str(turn.numbers.num_tokens),
            _text(turn.numbers.tokens_per_second, "{:.1f}"),
            _text(turn.numbers.tokens_per_round, "{:.2f}"),
            _text(turn.numbers.acceptance_rate, "{:.0%}"),
            _text(turn.numbers.cache_hit_rate, "{:.0%}"),
            _text(None if turn.numbers.first_token_s is None else turn.numbers.first_token_s * 1000, "{:.0f} ms"),
            turn.numbers.finish_reason,
        )
        for number, turn in shown
    ]
    tokens = sum(turn.numbers.num_tokens for turn in turns)
    seconds = sum(turn.numbers.seconds for turn in turns)
    notes = [f"{len(turns)} answer{'' if len(turns) == 1 else 's'}, {tokens} tokens in {seconds:.1f} s"]
    return Table([title for title, _ in _COLUMNS], rows, notes=notes, sides=[side for _, side in _COLUMNS])


def _text(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
