"""What stood where a tree's nodes were tried: the likeliest tokens, and how each refusal changed their chances."""

from __future__ import annotations

import torch

from ssd_lab.decoding.tree_acceptance import child_table, residual
from ssd_lab.decoding.tree_draws import remove
from ssd_lab.execution.structure import Tensors
from ssd_lab.rounds.token_tree import TokenTree, paths_from_root


def tree_alternatives(
    tree: TokenTree,
    tokens: torch.Tensor,
    target_probs: torch.Tensor,
    draft_probs: torch.Tensor | None,
    coins: torch.Tensor | None,
    count: int,
) -> Tensors:
    """The `count` likeliest tokens of either model after each row of the forward, and their probabilities.

    Args: tokens `[batch, nodes]`; target_probs `[batch, nodes + 1, vocab]`; draft_probs as in `Proposal` (None: certain
    guesses); coins `[batch, depth, width]`, which decided (None at temperature 0, where refusals change nothing).

    Returns listed tokens, the target's and the draft's probabilities `[batch, nodes + 1, n]` (-1: certain guesses, or
    nothing was drafted), the same two `[batch, nodes, n]` as they stood when a node was tried, its earlier siblings
    refused, for the tokens listed after its parent; each node's coin `[batch, nodes]` (-1: none). A node's own token is
    always among those of its parent. The law is that of `accept_tree_sampled`.
    """
    batch, nodes = tokens.shape
    every = torch.arange(batch, device=tokens.device)[:, None]
    table = child_table(tree.parents, tree.width, tree.valid)
    there = table >= 0
    children = tokens[every.unsqueeze(-1), table.clamp(min=0)]
    own = min(count, target_probs.shape[-1])
    parts = [target_probs.topk(own, -1).indices, children]
    drawn = there.any(-1) & ~tree.certain[:, None]  # after which rows something was drawn
    left = None
    if draft_probs is not None:
        some_child = table.amax(-1).clamp(min=0)  # siblings were drawn from the same row
        left = draft_probs[every, tree.drawn_from.gather(1, some_child)]
        parts.append(left.topk(own, -1).indices)
    listed = torch.cat(parts, -1)

    def of_draft(probs: torch.Tensor | None) -> torch.Tensor:
        nothing = torch.full(listed.shape, -1.0, dtype=target_probs.dtype, device=listed.device)
        return nothing if probs is None else torch.where(drawn.unsqueeze(-1), probs.gather(-1, listed), nothing)

    target, draft = target_probs.gather(-1, listed), of_draft(left)
    tried = [torch.nn.functional.pad(values[every, tree.parents + 1], (0, 0, 0, 1)) for values in (target, draft)]
    if coins is None:
        return listed, target, draft, tried[0][:, :-1], tried[1][:, :-1], torch.full_like(tried[0][:, :-1, 0], -1.0)
    now = target_probs
    node_coins = torch.full((batch, nodes + 1), -1.0, dtype=coins.dtype, device=coins.device)
    depths = torch.nn.functional.pad(paths_from_root(tree.parents, tree.depth)[1], (0, 1), value=1)
    for sibling in range(tree.width):
        place = torch.where(there[..., sibling], table[..., sibling], nodes)  # the last takes what is not there
        for kept, values in zip(tried, (now.gather(-1, listed), of_draft(left)), strict=True):
            kept.scatter_(1, place.unsqueeze(-1).expand_as(values), values)
        at_depth = coins[:, :, sibling].gather(1, depths.gather(1, place) - 1)
        node_coins.scatter_(1, place, torch.where(drawn, at_depth, -1.0))
        token = children[..., sibling]
        guess = torch.zeros_like(now).scatter_(-1, token.unsqueeze(-1), 1.0)
        tried_with = guess if left is None else torch.where(drawn.unsqueeze(-1), left, guess)
        refused = there[..., sibling].unsqueeze(-1)
        now = torch.where(refused, residual(now, tried_with), now)
        if left is not None:
            left = torch.where(refused, remove(left, token), left)
    return listed, target, draft, tried[0][:, :-1], tried[1][:, :-1], node_coins[:, :-1]
