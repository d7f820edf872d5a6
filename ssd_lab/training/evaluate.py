"""How well a draft guesses: tokens per round and cache hits over the target's greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd_lab.training.model import TrainableLlama


@dataclass(frozen=True)
class GuessQuality:
    """Totals over rounds that were not cut short by the end of an answer."""

    rounds: int
    accepted: int
    hits: int
    accepted_by_length: list[int]  # how many rounds accepted 0..k tokens
    positions: int
    agreements: int

    @property
    def tokens_per_round(self) -> float:
        """Accepted draft tokens plus the recovery token."""
        return self.accepted / max(1, self.rounds) + 1

    @property
    def hit_rate(self) -> float:
        """Share of outcomes that the draft had prepared."""
        return self.hits / max(1, self.rounds)

    @property
    def agreement(self) -> float:
        """Share of all positions where the draft's likeliest token is the target's."""
        return self.agreements / max(1, self.positions)


@torch.no_grad()
def draft_ranks(
    draft: TrainableLlama, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """For each answer, the rank (0 is the likeliest) that the draft gives to each of its tokens, [answer length]."""
    device = draft.cos.device
    ranks: list[Tensor] = []
    for begin in range(0, len(prompts), 64):
        chunk = [[*p, *a] for p, a in zip(prompts[begin : begin + 64], answers[begin : begin + 64], strict=True)]
        lengths = torch.tensor([len(c) for c in chunk])
        starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int().to(device)
        tokens = torch.tensor([t for c in chunk for t in c], device=device)
        positions = torch.cat([torch.arange(int(n)) for n in lengths]).to(device)
        hidden = draft.hidden(tokens, positions, starts, int(lengths.max()))
        logits = draft.logits(hidden[:-1]).float()
        chosen = logits.gather(1, tokens[1:, None])
        rank = (logits > chosen).sum(-1).cpu()  # of token i + 1, seen from position i
        offset = 0
        for prompt, answer in zip(prompts[begin : begin + 64], answers[begin : begin + 64], strict=True):
            first = offset + len(prompt) - 1
            ranks.append(rank[first : first + len(answer)])
            offset += len(prompt) + len(answer)
    return ranks


def guess_quality(ranks: Sequence[Tensor], *, k: int, fan_out: int) -> GuessQuality:
    """Replay greedy rounds: every accepted prefix is the target's own text, so ranks given that text are enough.

    ranks: for each answer `[length]`, or `[k + 1, length]` for a draft whose rank of a token depends on how many tokens
    of the same round came before it, as an EAGLE3 head's does: one line for 0, 1, .. k of them.

    A round that starts at i accepts the tokens of rank 0 from i on, at most k. Its recovery token is a hit if it is
    among the draft's `fan_out` candidates there: ranks 1..f after a rejection (rank 0 was the rejected token),
    ranks 0..f-1 after k accepted tokens.
    """
    rounds = accepted = hits = positions = agreements = 0
    by_length = [0] * (k + 1)
    for answer in ranks:
        lines = answer.tolist() if answer.ndim == 2 else [answer.tolist()] * (k + 1)
        length = len(lines[0])
        positions += length
        agreements += lines[0].count(0)
        start = 1  # the first token comes from the prefill
        while True:
            num_accepted = 0
            while num_accepted < k and start + num_accepted < length and lines[num_accepted][start + num_accepted] == 0:
                num_accepted += 1
            recovery = start + num_accepted
            if recovery >= length:
                break
            rounds += 1
            accepted += num_accepted
            by_length[num_accepted] += 1
            hits += lines[num_accepted][recovery] <= (fan_out - 1 if num_accepted == k else fan_out)
            start = recovery + 1
    return GuessQuality(rounds, accepted, hits, by_length, positions, agreements)
