"""How well an EAGLE3 head guesses: the target's greedy answers replayed as rounds, in batched forwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ssd_lab.training.corpus import Corpus
from ssd_lab.training.eagle3 import target_reading
from ssd_lab.training.eagle3_model import TrainableHead
from ssd_lab.training.model import TrainableLlama
from ssd_lab.training.padded import padded_batch

_ROWS = 16


@torch.no_grad()
def head_ranks(
    head: TrainableHead,
    target: TrainableLlama,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    k: int,
    draft_ids: Tensor | None = None,
) -> list[Tensor]:
    """For each answer `[k + 1, length]`: the rank (0 is the likeliest) of each token as the 1st, .. k + 1st of a round.

    The draft of a round whose last committed token is number p begins at row p - 1 and makes token p + 1 + j in its
    step j, so the rank of token t as number j of a round is read at row t - 2 - j of step j. A token that the draft
    cannot name has a rank behind all that it can; so have those to which no such round leads.
    """
    device = head.fc.weight.device
    whole = Corpus.build(prompts, answers)
    order = np.argsort(np.diff(whole.starts), kind="stable")
    target_size = target.config.vocab_size
    index_of = torch.arange(target_size, device=device)
    if draft_ids is not None:
        index_of = torch.full((target_size,), -1, device=device).index_copy_(
            0, draft_ids, torch.arange(len(draft_ids), device=device)
        )
    ranks: list[Tensor] = [torch.empty(0)] * len(prompts)
    for begin in range(0, len(order), _ROWS):
        chunk = order[begin : begin + _ROWS]
        batch = padded_batch(whole, chunk, max_length=target.config.max_positions, prompt_weight=0.0, device=device)
        features, _ = target_reading(target, batch, head.config.feature_layers)
        found = torch.full((len(chunk), k + 1, batch.tokens.shape[1]), target_size, device=device)
        steps = head.unrolled(features, batch.tokens, target.model.embed_tokens.weight, k + 1)
        for step, normed in enumerate(steps):
            first = step + 2  # row 0 of this step speaks of this token
            if first >= batch.tokens.shape[1]:
                break
            logits = head.logits(normed[:, :-first], target.output_weight).float()
            wanted = index_of[batch.tokens[:, first:]]
            chosen = logits.gather(-1, wanted.clamp(min=0)[..., None])
            rank = (logits > chosen).sum(-1)
            found[:, step, first:] = torch.where(wanted < 0, target_size, rank)
        for row, document in enumerate(chunk):
            answered = slice(len(prompts[document]), len(prompts[document]) + len(answers[document]))
            ranks[document] = found[row, :, answered].cpu()
    return ranks
