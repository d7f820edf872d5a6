"""The text of each token that a trace mentions, kept in it so that a view needs no tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssd_lab.trace.missing import MissingParts
from ssd_lab.trace.records import SequenceRound
from ssd_lab.trace.trace import Trace

Decode = Callable[[Sequence[int]], str]
KEY = "token_texts"


def chain_ids(record: SequenceRound) -> set[int]:
    """Token ids of one request's round, its tree apart: drafted, recovered and considered."""
    ids = {*record.draft_tokens, record.recovery_token}
    for place in record.alternatives or ():
        ids.update(place.tokens)
    return ids


def tree_ids(record: SequenceRound) -> set[int]:
    """Token ids of its tree, prepared and considered."""
    if record.tree is None:
        return set()
    ids = set(record.tree.tokens)
    for place in record.tree.alternatives or ():
        ids.update(place.tokens)
    return ids


def token_ids(trace: Trace) -> set[int]:
    """Every token id in the trace's rounds."""
    records = (record for round_record in trace.rounds for record in round_record.sequences)
    return set().union(*(chain_ids(record) | tree_ids(record) for record in records))


def token_texts(trace: Trace, decode: Decode | None = None) -> dict[str, str]:
    """Text by token id (written as text, as JSON has it): from `meta["token_texts"]`, else from `decode`.

    Ids without either are left out; a view shows their number.
    """
    known = trace.meta.get(KEY)
    texts = {str(token): str(text) for token, text in known.items()} if isinstance(known, dict) else {}
    if decode is not None:
        missing = sorted(token for token in token_ids(trace) if str(token) not in texts)
        texts |= {str(token): decode([token]) for token in missing}
    return texts


def with_token_texts(trace: Trace, decode: Decode) -> Trace:
    """The trace with `meta["token_texts"]`; if a text cannot be made, with `meta["missing"]` that says so."""
    missing = MissingParts()
    with missing.part("the texts of its tokens"):
        trace.meta = {**trace.meta, KEY: token_texts(trace, decode)}
    trace.meta = missing.noted(trace.meta)
    return trace
