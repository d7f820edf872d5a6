"""Shapes of draft trees: nodes with parents, who sees whom, and the branches of an asynchronous round."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def ancestors(parents: Sequence[int]) -> list[list[int]]:
    """For each node the nodes on its path from the root, itself last; parent -1 is the root's own place. Parents come
    first.
    """
    paths: list[list[int]] = []
    for node, parent in enumerate(parents):
        if not -1 <= parent < node:
            raise ValueError(f"node {node} has parent {parent}; a parent must be -1 or an earlier node")
        paths.append([*(paths[parent] if parent >= 0 else []), node])
    return paths


def branch_prefixes(fan_out: Sequence[int]) -> list[int]:
    """Accepted length that each branch assumes: `[2, 0, 1]` gives `[0, 0, 2]`."""
    return [num_accepted for num_accepted, count in enumerate(fan_out) for _ in range(count)]


def async_tree_parents(k: int, fan_out: Sequence[int], depth: int | None = None) -> list[int]:
    """Parents of a whole asynchronous round: the k drafted tokens, then for each branch a recovery token and `depth`
    draft tokens (None: k).
    """
    parents = list(range(-1, k - 1))
    for prefix in branch_prefixes(fan_out):
        first = len(parents)
        parents += [prefix - 1, *range(first, first + (k if depth is None else depth))]
    return parents


def recovery_candidates(logits: torch.Tensor, draft_tokens: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` recovery tokens `[batch, k + 1, count]` worth preparing after each prefix, the likeliest first.

    The token already drafted there is no candidate, since it would have been accepted (arXiv 2603.03251).

    Args: logits `[batch, k + 1, vocab]`, the draft's after each prefix; draft_tokens `[batch, k]`.
    """
    k = draft_tokens.shape[1]
    open_logits = logits.clone()
    open_logits[:, :k].scatter_(-1, draft_tokens.unsqueeze(-1), float("-inf"))
    return open_logits.topk(count, dim=-1).indices
