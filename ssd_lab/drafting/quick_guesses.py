"""Fast fallbacks that need no draft model: random tokens, and what followed the text's last tokens before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ssd_lab.decoding.n_gram import continuation
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.execution.host_copy import sent
from ssd_lab.rounds.drafted import Drafted

LONGEST = 3  # tokens of the text's end that are looked for


def random_guesses(
    seeds: Sequence[int],
    lengths: Sequence[int],
    k: int,
    vocab: int,
    *,
    num_tokens: int,
    sampled: bool,
    device: torch.device,
) -> Drafted:
    """k tokens a row, each drawn uniformly from the first num_tokens ids of the vocabulary (the others are padding);
    that is the distribution they are verified against.
    """
    places = sent(lengths, device)[:, None] + torch.arange(k, device=device)
    numbers = uniform(sent(seeds, device)[:, None], places, Purpose.FALLBACK)
    tokens = (numbers.double() * num_tokens).long().clamp(max=num_tokens - 1)
    probs = torch.full((*tokens.shape, vocab), 1 / num_tokens, device=device) if sampled else None
    if probs is not None:
        probs[..., num_tokens:] = 0.0
    return Drafted(tokens, probs, torch.full(tokens.shape, 1 / num_tokens, device=device))


def n_gram_guesses(texts: Sequence[Sequence[int]], k: int, *, device: torch.device) -> Drafted:
    """k tokens a row that followed the latest earlier occurrence of the text's end, as certain guesses; where there are
    fewer, the last one again and again.
    """
    rows = []
    for text in texts:
        found = list(continuation(text, LONGEST, k)) or [text[-1]]
        rows.append([*found, *[found[-1]] * (k - len(found))])
    tokens = sent(rows, device)
    return Drafted(tokens, None, torch.ones(tokens.shape, device=device))
