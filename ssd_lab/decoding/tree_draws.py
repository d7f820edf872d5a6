"""Children of a draft tree's node: how they are chosen decides which verification keeps the target's distribution.

`without_replacement`: a node's children are drawn one after the other from the draft's distribution q, each from what
the earlier ones left of it, renormalised. The i-th child then has the law q_i = q without x_1 .. x_(i-1), and
verification needs q itself. This is exact for a shape that is settled before the draws: whether a node has an i-th
child may depend on the path to the node, on q and on the earlier siblings, never on x_i or on what comes after it.
Choosing among drawn nodes by their probability (as EAGLE-2's reranking does) breaks this.

`top`: the children are a function of the text so far, for example the likeliest tokens. Nothing is drawn, each child
is a certain guess (its q is a one on it), and any shape is exact, dynamic ones too, since the whole tree is settled
before the target's random numbers are used.

A row at temperature 0 takes `top` whatever the others do: its q is a one, from which only one child can be drawn.
"""

from __future__ import annotations

from typing import Literal

import torch

from ssd_lab.decoding.sampling import sample

Draws = Literal["without_replacement", "top"]


def remove(probs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`probs` `[..., vocab]` without `tokens` `[...]`, renormalised; all zeros if nothing else had any mass."""
    left = probs.scatter(-1, tokens.unsqueeze(-1), 0.0)
    return left / left.sum(-1, keepdim=True).clamp(min=torch.finfo(left.dtype).tiny)


def draw_without_replacement(probs: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw children one after the other: `probs` `[..., vocab]`, one number in (0, 1) for each in `uniforms`
    `[..., width]`.

    Returns tokens `[..., width]` and valid `[..., width]`: False where the distribution has fewer possible tokens than
    children were asked for (top-p leaves few). The first child is the token that a chain would have drawn.
    """
    tokens, valid = [], []
    left = probs
    for sibling in range(uniforms.shape[-1]):
        possible = left.sum(-1) > 0
        token = sample(left, uniforms[..., sibling])
        tokens.append(torch.where(possible, token, 0))
        valid.append(possible)
        left = remove(left, token)
    return torch.stack(tokens, -1), torch.stack(valid, -1)


def draw_top(scores: torch.Tensor, width: int) -> torch.Tensor:
    """The `width` largest of `scores` (logits or probabilities) `[..., vocab]`, likeliest first: `[..., width]`."""
    return scores.topk(width, dim=-1).indices
