"""Which path of a draft tree the target keeps, and the token it adds after it.

A tree is `tokens` and `parents` `[batch, nodes]`: node i stands after node `parents[i]`, -1 is the last committed
token; parents come before their children, and siblings are tried in the order in which they stand. `target_*` tensors
have nodes + 1 rows: row 0 after the last committed token, row i + 1 after node i.

All functions work on whole batches with static shapes (`depth` and `width` are plain ints), walk from the root one
level at a time and never read the device. Which numbers decide what: `accept_uniforms[:, d, i]` the i-th child at depth
d, `recovery_uniforms[:, d]` the token added after d accepted nodes. Nodes of one depth share them: only the children of
one node per depth are examined, and which node that is was settled by numbers of earlier depths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.sampling import sample
from ssd_lab.decoding.tree_draws import remove


@dataclass(frozen=True)
class TreeOutcome:
    """path `[batch, depth]`: accepted nodes from the root down, then -1; num_accepted `[batch]`; recovery_token
    `[batch]`.
    """

    path: torch.Tensor
    num_accepted: torch.Tensor
    recovery_token: torch.Tensor


def child_table(parents: torch.Tensor, width: int, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Children of each row `[batch, nodes + 1, width]` as node indices, in order; -1 where there is none (any more).

    A child that is not `valid` `[batch, nodes]` keeps its place among its siblings and stands as -1. Siblings past
    `width` are never tried.
    """
    batch, nodes = parents.shape
    rank = (parents[:, :, None] == parents[:, None, :]).tril(-1).sum(-1)  # earlier nodes with the same parent
    inside = rank < width if valid is None else (rank < width) & valid
    index = torch.arange(nodes, device=parents.device).expand(batch, nodes)
    table = torch.full((batch, (nodes + 1) * width + 1), -1, dtype=torch.int64, device=parents.device)
    place = torch.where(inside, (parents + 1) * width + rank, (nodes + 1) * width)  # the last place takes the rest
    table.scatter_(1, place, index)
    return table[:, :-1].view(batch, nodes + 1, width)


def accept_tree_greedy(
    target_tokens: torch.Tensor,
    tokens: torch.Tensor,
    parents: torch.Tensor,
    *,
    depth: int,
    width: int,
    valid: torch.Tensor | None = None,
) -> TreeOutcome:
    """Go down while a child equals the target's choice.

    Args: target_tokens `[batch, nodes + 1]`, the target's likeliest token after each node; tokens, parents, valid
    `[batch, nodes]`; depth: of the deepest node; width: the most children of a node.
    """
    rows = torch.arange(len(tokens), device=tokens.device)
    table = child_table(parents, width, valid)
    node = torch.full_like(rows, -1)
    alive = torch.ones_like(rows, dtype=torch.bool)
    path = []
    for _ in range(depth):
        here = target_tokens[rows, node + 1]
        chosen = _matching(table[rows, node + 1], tokens, here)
        alive, node = _go_down(alive, node, chosen)
        path.append(torch.where(alive, node, -1))
    return _outcome(path, target_tokens[rows, node + 1])


def accept_tree_certain(
    target_probs: torch.Tensor,
    tokens: torch.Tensor,
    parents: torch.Tensor,
    recovery_uniforms: torch.Tensor,
    *,
    depth: int,
    width: int,
    valid: torch.Tensor | None = None,
) -> TreeOutcome:
    """Verify certain guesses (draws="top"): at each node draw the target's token, and go down if a child guessed it.

    Recursive rejection with a delta for each sibling accepts the i-th child x_i with probability p(x_i) / (1 - p(x_1) -
    .. - p(x_(i-1))), in all p(x_i), and recovers from p without the children: the law of a draw from p that is looked
    up among the children. Doing just that needs one number a depth, the one that autoregressive decoding uses at that
    position, so the text is the autoregressive text of the same seed, whatever was guessed.

    Args: target_probs `[batch, nodes + 1, vocab]`; recovery_uniforms `[batch, depth + 1]`; the others as above.
    """
    rows = torch.arange(len(tokens), device=tokens.device)
    table = child_table(parents, width, valid)
    node = torch.full_like(rows, -1)
    alive = torch.ones_like(rows, dtype=torch.bool)
    recovery = sample(target_probs[:, 0], recovery_uniforms[:, 0])
    path = []
    for level in range(depth):
        chosen = _matching(table[rows, node + 1], tokens, recovery)
        alive, node = _go_down(alive, node, chosen)
        path.append(torch.where(alive, node, -1))
        drawn = sample(target_probs[rows, node + 1], recovery_uniforms[:, level + 1])
        recovery = torch.where(alive, drawn, recovery)
    return _outcome(path, recovery)


def accept_tree_sampled(
    target_probs: torch.Tensor,
    tokens: torch.Tensor,
    parents: torch.Tensor,
    draft_probs: torch.Tensor,
    accept_uniforms: torch.Tensor,
    recovery_uniforms: torch.Tensor,
    *,
    depth: int,
    width: int,
    draft_rows: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
) -> TreeOutcome:
    """Recursive rejection sampling without replacement over siblings (draws="without_replacement").

    At a node with target distribution p and draft distribution q the children are tried in order: child x stays with
    probability min(1, p(x) / q(x)); if it does not, p becomes max(p - q, 0) and q loses x, both renormalised. When no
    child is left the recovery token comes from p. Exact if each child was drawn from q as it stands when the child is
    tried (`tree_draws` says which shapes keep that). After SpecInfer (arXiv 2305.09781: several rounds of speculative
    sampling at a node), EAGLE (arXiv 2401.15077) and Sequoia (arXiv 2402.12374: siblings without replacement).

    Args: target_probs `[batch, nodes + 1, vocab]`; draft_probs `[batch, rows, vocab]`; draft_rows `[batch, nodes]`, the
    row of draft_probs that each node was drawn from (None: row `parents + 1`, one row for each node and the root);
    accept_uniforms `[batch, depth, width]`; recovery_uniforms `[batch, depth + 1]`; the others as in
    `accept_tree_greedy`.
    """
    rows = torch.arange(len(tokens), device=tokens.device)
    table = child_table(parents, width, valid)
    drawn_from = parents + 1 if draft_rows is None else draft_rows
    node = torch.full_like(rows, -1)
    alive = torch.ones_like(rows, dtype=torch.bool)
    p = target_probs[:, 0]
    path = []
    for level in range(depth):
        children = table[rows, node + 1]  # [batch, width]
        any_child = children.amax(1, keepdim=True).clamp(min=0)  # siblings were drawn from the same row
        q = draft_probs[rows, drawn_from.gather(1, any_child).squeeze(1)]
        chosen = torch.full_like(node, -1)
        for sibling in range(width):
            child = children[:, sibling]
            tried = alive & (chosen < 0) & (child >= 0)
            token = tokens.gather(1, child.clamp(min=0)[:, None])
            kept = accepts(p.gather(1, token), q.gather(1, token), accept_uniforms[:, level, sibling, None]).squeeze(1)
            chosen = torch.where(tried & kept, child, chosen)
            rejected = (tried & ~kept)[:, None]
            p = torch.where(rejected, residual(p, q), p)
            q = torch.where(rejected, remove(q, token.squeeze(1)), q)
        alive, node = _go_down(alive, node, chosen)
        path.append(torch.where(alive, node, -1))
        p = torch.where(alive[:, None], target_probs[rows, node + 1], p)
    outcome = _outcome(path, torch.zeros_like(node))
    numbers = recovery_uniforms.gather(1, outcome.num_accepted[:, None]).squeeze(1)
    return TreeOutcome(outcome.path, outcome.num_accepted, sample(p, numbers))


def accepts(p: torch.Tensor, q: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Keep with probability min(1, p / q)."""
    return uniforms * q < p


def residual(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """max(p - q, 0) over the last dimension, renormalised."""
    left = (p - q).clamp(min=0)
    total = left.sum(-1, keepdim=True)
    # p = q up to rounding leaves nothing to draw from; a rejection is then as likely as rounding itself
    return torch.where(total > 0, left / total.clamp(min=torch.finfo(left.dtype).tiny), p)


def _matching(children: torch.Tensor, tokens: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The first of `children` `[batch, width]` whose token is `wanted` `[batch]`, or -1."""
    same = (children >= 0) & (tokens.gather(1, children.clamp(min=0)) == wanted[:, None])
    first = children.gather(1, same.long().argmax(1, keepdim=True)).squeeze(1)
    return torch.where(same.any(1), first, -1)


def _go_down(alive: torch.Tensor, node: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that found a child go to it; the others stop for good."""
    alive = alive & (chosen >= 0)
    return alive, torch.where(alive, chosen, node)


def _outcome(path: list[torch.Tensor], recovery_token: torch.Tensor) -> TreeOutcome:
    nodes = torch.stack(path, 1) if path else recovery_token.new_zeros(len(recovery_token), 0)
    return TreeOutcome(nodes, (nodes >= 0).sum(1), recovery_token)
