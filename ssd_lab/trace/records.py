"""The records of a run: plain data, no tensors, no engine. Everything shown or measured later is derived from these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TreeRecord:
    """A draft tree as flat arrays: node i holds `tokens[i]`, drawn with `draft_probs[i]` after node `parents[i]`.

    Parent -1 is the last committed token. For `async_tree` the first k nodes are the chain under verification, then
    come the branches: a candidate recovery token (its probability under the draft) and its draft tokens (as many as the
    next round verifies: k, unless that is chosen while running), branch after branch. target_probs: of a tree that was
    verified, the target's probability of each node (None where it was not computed, and for the whole of a tree that
    was only prepared). In a verified tree siblings stand in the order in which they were tried, and draft_probs are the
    draft's probabilities of the tokens before any sibling was left out.

    Recorded of verified trees where the run's settings give them, else None: alternatives, the likeliest tokens at each
    node's place, its own among them, with the probabilities as they stood when the node was tried: at temperature > 0
    each sibling before it was refused, which left the target max(p - q, 0) and the draft q without that sibling, both
    normalised. coins: the uniform number that each drawn node was tested with, were it reached (None for certain
    guesses and at temperature 0).
    """

    tokens: list[int]
    parents: list[int]
    draft_probs: list[float]
    target_probs: list[float | None] | None = None
    alternatives: list[Position] | None = None
    coins: list[float] | None = None

    def starts_of_runs(self, chain: int) -> list[int]:
        """First nodes of the runs behind a chain of so many nodes. One may begin right behind the chain's last node,
        which looks like its next.
        """
        parents = enumerate(self.parents)
        return [node for node, parent in parents if node >= chain and (parent != node - 1 or node == chain)]


@dataclass(frozen=True)
class Position:
    """The likeliest tokens at one verified place: the union of the target's and of the draft's, in any order.

    target_probs, draft_probs: their probabilities after temperature and filters, draft_probs being those the draft
    token was drawn from (None where there was no draft token, as after the last). draft_raw_probs: the draft's before
    Saguaro sampling, None if that was not used.

    What these tokens do not cover of a distribution is 1 - their sum.
    """

    tokens: list[int]
    target_probs: list[float]
    draft_probs: list[float] | None = None
    draft_raw_probs: list[float] | None = None


@dataclass(frozen=True)
class Branch:
    """What an asynchronous draft prepared for one outcome: `tokens` to verify next, if `num_accepted` draft tokens stay
    and `recovery_token` follows them. draft_prob: how likely the draft thought that token there.
    """

    num_accepted: int
    recovery_token: int
    tokens: list[int]
    draft_prob: float

    @property
    def outcome(self) -> tuple[int, int]:
        """The key in the speculation cache."""
        return self.num_accepted, self.recovery_token


@dataclass(frozen=True)
class SequenceRound:
    """What happened to one sequence in one round.

    position: committed tokens before the round. draft_tokens: what was verified; of a tree the accepted path and after
    it first children down to a leaf, so that positions are depths: the token at num_accepted was offered and not taken,
    and whatever was drafted beside this chain stands in `tree` alone. draft_probs / target_probs: probability of each
    draft token under either model (softmax at the request's temperature, at temperature 0 the plain softmax).
    num_accepted: 0..len(draft_tokens). recovery_token: the target's own token after the accepted ones. num_emitted:
    tokens that entered the text (fewer than num_accepted + 1 if a stop came first). origin: which path made the draft
    tokens (`draft`, `tree`, `hit`, `jit`, `fast`, `expected`, `custom`, `none`). cache_hit: was the outcome of the
    previous round in the speculation cache (None where there is no cache or no previous round). tree: what was drafted
    while this round was verified, or the tree that was verified.

    Recorded where the strategy and the run's settings give them, else None:
    coins: the uniform number with which each draft token was tested, accepted if it is below target / draft probability
    (None for trees, whose nodes have one each, and for certain guesses, which stay if the target's
    own draw is the same). recovery_coin: the one that drew the recovery token (both None at temperature 0). fan_out:
    the schedule of this round's tree, k + 1 numbers. recovery_rank: place of the recovery token among the draft's
    candidates after the accepted tokens, 0 the likeliest, a rejected draft token left out; the next lookup is a hit if
    and only if it is below fan_out[num_accepted]; a token beyond the candidates that were ranked has their number,
    which is meta["ranked_candidates"]. predicted_hit: how likely the hit that `cache_hit` tells of was thought to be
    before. alternatives: the likeliest tokens at each verified place, one more than draft tokens.
    """

    request_id: int
    position: int
    draft_tokens: list[int]
    draft_probs: list[float]
    target_probs: list[float]
    num_accepted: int
    recovery_token: int
    recovery_prob: float
    num_emitted: int
    origin: str
    cache_hit: bool | None = None
    tree: TreeRecord | None = None
    coins: list[float] | None = None
    recovery_coin: float | None = None
    recovery_rank: int | None = None
    fan_out: list[int] | None = None
    alternatives: list[Position] | None = None
    predicted_hit: float | None = None

    @property
    def outcome(self) -> tuple[int, int]:
        """All that a round decides: how many draft tokens stayed, and the target's own token after them."""
        return self.num_accepted, self.recovery_token

    def branches(self) -> list[Branch]:
        """What was prepared while this round was verified, in the order of the accepted lengths; of strategies that
        prepare nothing, none.
        """
        tree = self.tree
        if tree is None or tree.target_probs is not None:
            return []
        starts = tree.starts_of_runs(self.chain_length())
        ends = [*starts[1:], len(tree.tokens)]
        return [
            Branch(tree.parents[start] + 1, tree.tokens[start], tree.tokens[start + 1 : end], tree.draft_probs[start])
            for start, end in zip(starts, ends, strict=True)
        ]

    def chain_length(self) -> int:
        """Nodes of the tree that are the chain under verification. The schedule tells; without it, the first run of
        nodes is the chain.
        """
        tree = self.tree
        if tree is None:
            return 0
        if tree.target_probs is None and self.fan_out is not None:
            return len(self.fan_out) - 1
        return next((node for node, parent in enumerate(tree.parents) if parent != node - 1), len(tree.tokens))


@dataclass(frozen=True)
class Activity:
    """A span of work or waiting on one lane (`target`, `draft`, `link`; of several drafts `draft 0`, `link 0`, ...), in
    seconds of the run's clock (0 at its start).
    """

    lane: str
    name: str
    start_s: float
    end_s: float

    @property
    def role(self) -> str:
        """Whose lane it is, whichever of several."""
        return self.lane.partition(" ")[0]

    @property
    def is_preparation(self) -> bool:
        """Was a graph captured, or a kernel compiled?"""
        return self.name.startswith(("capture ", "compile "))


@dataclass(frozen=True)
class RoundRecord:
    """One round of the whole batch. Activities that overlap the round on other lanes are stored with it.

    preparation_s: seconds of it in which graphs were captured or kernels compiled, for the target or the draft. Such a
    round is in the trace and in no rate and no round time: what it takes is not what such a round takes.
    """

    index: int
    start_s: float
    end_s: float
    sequences: list[SequenceRound]
    activities: list[Activity] = field(default_factory=list)
    preparation_s: float = 0.0


@dataclass(frozen=True)
class RequestRecord:
    """One request from entry to end, times in seconds of the run's clock.

    admitted_s: when it left the queue (None in older traces, and where it never did).
    """

    request_id: int
    prompt: str | None
    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: str | None
    arrival_s: float
    first_token_s: float | None
    end_s: float | None
    params: dict[str, Any] = field(default_factory=dict)
    admitted_s: float | None = None
