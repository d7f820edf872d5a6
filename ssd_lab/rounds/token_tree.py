"""How the draft tokens of a proposal hang together when they are more than a chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.execution.host_copy import sent


@dataclass(frozen=True)
class TokenTree:
    """The tree of each row's tokens, on the device of the tokens.

    parents `[batch, nodes]`: -1 is the last committed token; parents come before their children, and siblings stand in
    the order in which they are tried. valid `[batch, nodes]`: False where a node's place is empty. drawn_from `[batch,
    nodes]`: which row of the proposal's `probs` `[batch, rows, vocab]` a node was drawn from, the same for siblings:
    the first with that distribution, each further one without those before it. certain `[batch]`: the row's tokens are
    certain guesses, whatever `probs` says (all rows are where it is None, or at temperature 0). depth: of the deepest
    node. width: the most children of a node.
    """

    parents: torch.Tensor
    valid: torch.Tensor
    drawn_from: torch.Tensor
    certain: torch.Tensor
    depth: int
    width: int

    def problem(self, batch: int, nodes: int, lookahead: int) -> str | None:
        """What makes this no tree over `nodes` tokens of each of `batch` sequences; None if nothing does."""
        for name, kind in (("parents", torch.int64), ("valid", torch.bool), ("drawn_from", torch.int64)):
            tensor = getattr(self, name)
            if tuple(tensor.shape) != (batch, nodes) or tensor.dtype != kind:
                return f"tree.{name} must be {kind} [sequences, nodes] = {[batch, nodes]}, and is {list(tensor.shape)}"
        if tuple(self.certain.shape) != (batch,) or self.certain.dtype != torch.bool:
            return f"tree.certain must be torch.bool [{batch}]"
        if not 1 <= self.depth <= lookahead:
            return f"the tree is {self.depth} deep, and the strategy declared at most {lookahead}"
        own = torch.arange(nodes, device=self.parents.device)
        if self.parents.device.type == "cpu" and bool(((self.parents < -1) | (self.parents >= own)).any()):
            return "tree.parents must each be -1 or an earlier node"
        return None

    @classmethod
    def of_chains(cls, tokens: torch.Tensor, num_drafted: list[int], probs: torch.Tensor | None) -> TokenTree:
        """Chains `[batch, k]` as trees. A row whose tokens are spelled out as ones in `probs` is certain too."""
        batch, k = tokens.shape
        own = torch.arange(k, device=tokens.device).expand(batch, -1)
        drafted = own < sent(num_drafted, tokens.device)[:, None]
        certain = torch.ones(batch, dtype=torch.bool, device=tokens.device)
        drawn_from = torch.zeros_like(tokens)  # the other rows of a round may hold fewer distributions than k
        if probs is not None:
            drawn_from = own
            certain = ((probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) == 1.0) | ~drafted).all(-1)
        return cls(own - 1, drafted, drawn_from, certain, max(k, 1), 1)


def paths_from_root(parents: torch.Tensor, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each node `[batch, nodes]` its ancestors from the root down, itself last, then -1: `[batch, nodes, depth]`;
    and its depth `[batch, nodes]`, 1 for children of the last committed token.
    """
    node = torch.arange(parents.shape[1], device=parents.device).expand_as(parents)
    upward = [node]
    for _ in range(depth - 1):
        node = torch.where(node >= 0, parents.gather(1, node.clamp(min=0)), -1)
        upward.append(node)
    climbed = torch.stack(upward, -1)
    depths = (climbed >= 0).sum(-1)
    place = depths.unsqueeze(-1) - 1 - torch.arange(depth, device=parents.device)
    return torch.where(place >= 0, climbed.gather(-1, place.clamp(min=0)), -1), depths
