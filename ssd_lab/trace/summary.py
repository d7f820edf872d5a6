"""A sequence's rounds as lines of text, for terminals: what was drafted, what was kept, what the target said."""

from __future__ import annotations

from ssd_lab.trace.records import SequenceRound
from ssd_lab.trace.token_texts import Decode
from ssd_lab.trace.trace import Trace


def round_line(index: int, record: SequenceRound, decode: Decode) -> str:
    """One round as `round 12: drafted |the| sun| is| accepted 2, recovery ' a' (hit)`."""
    recovery = f"recovery {decode([record.recovery_token])!r}"
    if not record.draft_tokens:
        return f"round {index}: {recovery}"
    # repr without its quotes: line breaks and control characters must not reach the terminal
    drafted = "|".join(repr(decode([token]))[1:-1] for token in record.draft_tokens)
    if record.num_accepted == len(record.draft_tokens):
        recovery = f"bonus {decode([record.recovery_token])!r}"
    line = f"round {index}: drafted |{drafted}| accepted {record.num_accepted}, {recovery} ({_origin(record)})"
    dropped = record.num_accepted + 1 - record.num_emitted
    return f"{line}, {dropped} not emitted" if dropped > 0 else line


def sequence_summary(trace: Trace, request_id: int, decode: Decode) -> str:
    """All recorded rounds of one request, one line each; says so where none were recorded."""
    lines = [
        round_line(round_record.index, record, decode)
        for round_record in trace.rounds
        for record in round_record.sequences
        if record.request_id == request_id
    ]
    return "\n".join(lines) if lines else f"no rounds recorded for request {request_id}"


def _origin(record: SequenceRound) -> str:
    if record.cache_hit is None or record.origin == "hit":
        return record.origin
    return f"{'hit' if record.cache_hit else 'miss'}, {record.origin}"
