"""EAGLE-2's dynamic draft tree: its shape follows the draft's confidence (arXiv 2406.16858).

Level by level the `top_k` nodes of highest cumulative log-probability are expanded into their `top_k` likeliest
children each; in the end the best nodes of all levels are kept. A child never scores above its parent and comes after
it, so what is kept is a tree. All shapes are static; ties go to the node that came first.

The children are no random draws but certain guesses: verify them as such (`draws="top"`, see `tree_draws`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Growth:
    """A tree while it grows.

    tokens, parents, scores `[batch, pool]`: every candidate so far, level after level, with its parent in the pool (-1:
    the last committed token) and the sum of log-probabilities on its path. frontier `[batch, top_k]`: candidates of the
    latest level to be expanded next, best first. ancestors `[batch, top_k, levels]`: for each of them its place in the
    frontier of every level so far, its own last: whose K/V it sees when it is fed to the draft.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    scores: torch.Tensor
    frontier: torch.Tensor
    ancestors: torch.Tensor

    @property
    def frontier_tokens(self) -> torch.Tensor:
        """Tokens to feed next `[batch, top_k]`."""
        return self.tokens.gather(1, self.frontier)


@dataclass(frozen=True)
class RerankedTree:
    """What is kept: tokens, parents (-1 or an earlier node), scores, each `[batch, nodes]`, and `pool_index`, the place
    of each node among the candidates.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    scores: torch.Tensor
    pool_index: torch.Tensor


def pool_size(top_k: int, depth: int) -> int:
    """Candidates after `depth` levels."""
    return top_k + (depth - 1) * top_k * top_k


def begin(log_probs: torch.Tensor, top_k: int) -> Growth:
    """The first level: the draft's `top_k` likeliest tokens, given `log_probs` `[batch, vocab]`."""
    scores, tokens = best(log_probs, top_k)
    own = torch.arange(top_k, device=tokens.device).expand(len(tokens), -1)
    return Growth(tokens, torch.full_like(tokens, -1), scores, own, own.unsqueeze(-1))


def grow(growth: Growth, log_probs: torch.Tensor) -> Growth:
    """One more level, given the draft's `log_probs` `[batch, top_k, vocab]` after each node of the frontier."""
    batch, top_k, _ = log_probs.shape
    gained, tokens = best(log_probs, top_k)  # [batch, top_k, top_k]
    scores = (growth.scores.gather(1, growth.frontier).unsqueeze(-1) + gained).view(batch, -1)
    parents = growth.frontier.repeat_interleave(top_k, dim=1)
    _, chosen = best(scores, top_k)
    behind = torch.div(chosen, top_k, rounding_mode="floor")  # place of the parent in the old frontier
    seen = growth.ancestors.gather(1, behind.unsqueeze(-1).expand(-1, -1, growth.ancestors.shape[-1]))
    own = torch.arange(top_k, device=chosen.device).expand(batch, -1).unsqueeze(-1)
    return Growth(
        torch.cat([growth.tokens, tokens.view(batch, -1)], 1),
        torch.cat([growth.parents, parents], 1),
        torch.cat([growth.scores, scores], 1),
        growth.tokens.shape[1] + chosen,
        torch.cat([seen, own], -1),
    )


def rerank(growth: Growth, num_nodes: int) -> RerankedTree:
    """Keep the `num_nodes` best candidates of all levels, in the order in which they came."""
    _, kept = best(growth.scores, num_nodes)
    index = kept.sort(-1).values
    batch, pool = growth.tokens.shape
    place = torch.full((batch, pool + 1), -1, dtype=torch.int64, device=index.device)
    own = torch.arange(num_nodes, device=index.device).expand(batch, -1)
    place.scatter_(1, index + 1, own)  # place[:, 0] stands for parent -1
    parents = place.gather(1, growth.parents.gather(1, index) + 1)
    return RerankedTree(growth.tokens.gather(1, index), parents, growth.scores.gather(1, index), index)


def best(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of `scores` `[..., n]` (float32) and their places, best first, of equal ones the first first.

    `topk` promises no order among equal values, and a parent must come before a child that is just as likely. So it
    gets whole numbers that differ: the float's bits, made to sort as the float does, above the place from the end.
    """
    bits = (scores + 0.0).view(torch.int32).to(torch.int64)  # + 0.0: no negative zero
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    from_end = torch.arange(scores.shape[-1] - 1, -1, -1, device=scores.device)
    places = ((ordered << 32) | from_end).topk(count, dim=-1).indices
    return scores.gather(-1, places), places
