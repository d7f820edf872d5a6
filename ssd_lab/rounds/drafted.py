"""What a draft made: chains of tokens, and the branches that it prepared for the next outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ssd_lab.rounds.token_tree import TokenTree


@dataclass(frozen=True)
class Drafted:
    """tokens `[batch, n]`; probs `[batch, n, vocab]` they were drawn from (None if all rows are greedy); token_probs
    `[batch, n]`, the draft's probability of each (None unless recorded); raw_probs like probs, before Saguaro sampling
    (None unless that was used and details are recorded).
    """

    tokens: torch.Tensor
    probs: torch.Tensor | None
    token_probs: torch.Tensor | None
    raw_probs: torch.Tensor | None = None

    def at(self, *index: torch.Tensor) -> Drafted:
        """Some rows, in another order; of branches `[batch, branches, n]` those at (row, branch)."""
        return self._each(lambda tensor: tensor[index])

    def first(self, count: int) -> Drafted:
        """The first rows: those before the padding."""
        return self._each(lambda tensor: tensor[:count])

    def steps(self, count: int) -> Drafted:
        """Of chains `[batch, n]` the first tokens: `[batch, count]`."""
        return self._each(lambda tensor: tensor[:, :count])

    def row(self, index: int) -> Drafted:
        """Of `[batch, rows]` tokens those of one row: `[batch]`."""
        return self._each(lambda tensor: tensor[:, index])

    @classmethod
    def concatenated(cls, parts: Sequence[Drafted]) -> Drafted:
        """The rows of one part after those of another; all parts hold the same fields."""
        return cls._together(parts, torch.cat)

    @classmethod
    def joined(cls, steps: Sequence[Drafted]) -> Drafted:
        """Single steps `[batch]`, one after the other: `[batch, n]`. Branches `[batch, branches]` likewise: `[batch,
        branches, n]`.
        """
        dim = steps[0].tokens.ndim
        return cls._together(steps, lambda tensors: torch.stack(tensors, dim))

    @classmethod
    def _together(cls, parts: Sequence[Drafted], join: Callable[[list[torch.Tensor]], torch.Tensor]) -> Drafted:
        tokens, *fields = zip(*(part._fields() for part in parts), strict=True)
        return cls(join(list(tokens)), *(None if None in field else join(list(field)) for field in fields))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Drafted:
        tokens, *fields = self._fields()
        return Drafted(change(tokens), *(None if tensor is None else change(tensor) for tensor in fields))

    def _fields(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        return self.tokens, self.probs, self.token_probs, self.raw_probs


@dataclass(frozen=True)
class DraftConfidence:
    """What the draft thought of its own round: its probability of each draft token `[batch, k]` and of each candidate
    `[batch, k + 1, n]` (given that the draft token is refused), and the chance `[batch]` that the outcome is prepared.
    """

    confidences: torch.Tensor
    candidate_probs: torch.Tensor
    hit_chance: torch.Tensor


@dataclass(frozen=True)
class DraftTree:
    """Branches prepared for the rows of a round.

    counts `[batch, k + 1]`: how many recovery tokens were prepared at each accepted length, the likeliest ones;
    branches are ordered by accepted length, then by rank. recovery_tokens `[batch, branches]`: what each branch
    assumes; keys `[batch, branches]`: the same with the accepted length, for lookups. candidates `[batch, k + 1, n]`:
    the likeliest recovery tokens after each accepted length, with a branch or not. drafted: the branches'
    continuations, with tokens and token_probs `[batch, branches, depth]` and probs `[batch, branches, depth, vocab]`.
    recovery_probs `[batch, branches]`: the draft's probability of each recovery token (None unless recorded).
    confidence: None unless the fan-out was chosen by it.
    """

    counts: torch.Tensor
    recovery_tokens: torch.Tensor
    keys: torch.Tensor
    candidates: torch.Tensor
    drafted: Drafted
    recovery_probs: torch.Tensor | None
    confidence: DraftConfidence | None


@dataclass(frozen=True)
class GrownTree:
    """Trees drafted for the rows of a round.

    tokens `[batch, nodes]` and the tree over them; probs `[batch, rows, vocab]`, what drawn children were drawn from
    (None: certain guesses); token_probs `[batch, nodes]`, the draft's probability of each (None unless recorded).
    written `[batch, nodes]`: where the draft's K/V of each node is, counted from the first place behind the committed
    tokens; -1 for nodes that were not fed to the draft.
    """

    tokens: torch.Tensor
    tree: TokenTree
    probs: torch.Tensor | None
    token_probs: torch.Tensor | None
    written: torch.Tensor
