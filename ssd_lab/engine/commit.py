"""From a round's outcome to a request's tokens, and from those to its text."""

from __future__ import annotations

import torch

from ssd_lab.engine.logprobs import token_logprobs
from ssd_lab.rounds.sequence import LastRound, Sequence
from ssd_lab.rounds.verified import Verified


def append_outcome(sequence: Sequence, row: int, verified: Verified, max_model_len: int) -> int:
    """Append the accepted draft tokens and the recovery token until the request ends, as far as tokens tell; returns
    how many were appended.
    """
    num_accepted = verified.num_accepted[row]
    tokens = [*verified.draft_tokens[row][:num_accepted], verified.recovery_tokens[row]]
    prompt = len(sequence.prompt_ids)
    appended = 0
    for token in tokens:
        sequence.token_ids.append(token)
        appended += 1
        length = len(sequence.token_ids)
        sequence.is_complete = sequence.stop.ends_with(token, length - prompt) or length >= max_model_len
        if sequence.is_complete:
            break
    sequence.last_accepted = num_accepted
    numbers = verified.probabilities
    sequence.last_round = LastRound(
        verified.num_drafted[row], num_accepted, None if numbers is None else (numbers, row)
    )
    sequence.num_cached = len(sequence.token_ids) - 1
    return appended


def make_text(sequence: Sequence, appended: int, max_model_len: int, logits: torch.Tensor) -> int:
    """Turn the appended tokens into text; returns how many of them stay, fewer if a stop string ended the text.

    logits: `[rows, vocab]` that decided the round.
    """
    if not appended:
        return 0
    first = len(sequence.token_ids) - appended
    emitted = 0
    for token in sequence.token_ids[first:]:
        emitted += 1
        sequence.finish_reason = sequence.stop.push(token)
        if sequence.finish_reason is None and first + emitted >= max_model_len:
            sequence.stop.finish()
            sequence.finish_reason = "length"
        if sequence.finish_reason is not None:
            break
    del sequence.token_ids[first + emitted :]
    if sequence.params.logprobs:
        sequence.logprobs += token_logprobs(logits, sequence.token_ids[first:], sequence.params.logprobs)
    return emitted
