"""The text of each token that a trace mentions, kept in it so that a view needs no tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssd_lab.trace.records import Trace

Decode = Callable[[Sequence[int]], str]
KEY = "token_texts"


def token_ids(trace: Trace) -> set[int]:
    """Every token id in the trace's rounds: drafted, recovered, prepared and considered."""
    ids: set[int] = set()
    for record in (record for round_record in trace.rounds for record in round_record.sequences):
        ids.update(record.draft_tokens)
        ids.add(record.recovery_token)
        if record.tree is not None:
            ids.update(record.tree.tokens)
            for place in record.tree.alternatives or ():
                ids.update(place.tokens)
        for place in record.alternatives or ():
            ids.update(place.tokens)
    return ids


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
