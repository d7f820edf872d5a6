"""A draft tree kept for the trace: copied to the host beside the run, made into records when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.tree import async_tree_parents
from ssd_lab.execution.host_copy import HostCopy
from ssd_lab.execution.structure import Tensors
from ssd_lab.rounds.drafted import DraftTree
from ssd_lab.trace.records import TreeRecord

_COUNTS, _CANDIDATES = 6, 7  # places in the copy


@dataclass(frozen=True)
class RecordedTree:
    """The tree of one round's rows. copy: of its `tensors`, and perhaps more behind them. rounds_ago: how many rounds
    before the one whose reply brings it.
    """

    request_ids: list[int]
    copy: HostCopy
    rounds_ago: int = 1

    @staticmethod
    def tensors(chain: torch.Tensor, chain_probs: torch.Tensor | None, tree: DraftTree) -> Tensors:
        """What a copy begins with. chain, chain_probs `[batch, k]`: what is being verified. Nothing for a tree without
        probabilities.
        """
        if chain_probs is None or tree.recovery_probs is None or tree.drafted.token_probs is None:
            return ()
        branches = (tree.recovery_tokens, tree.recovery_probs, tree.drafted.tokens, tree.drafted.token_probs)
        return chain, chain_probs, *branches, tree.counts, tree.candidates

    def settled(self) -> RecordedTree:
        """The same, in memory of its own. It is there once a round is over that was drafted after it."""
        self.copy.arrays()
        return self

    def records(self) -> dict[int, TreeRecord]:
        """By request id; the layout is that of `TreeRecord`."""
        chain, chain_probs, recovery, recovery_probs, drafted, drafted_probs, counts = (
            array.tolist() for array in self.copy.arrays()[:_CANDIDATES]
        )
        records = {}
        for row, request_id in enumerate(self.request_ids):
            tokens, probs = list(chain[row]), list(chain_probs[row])
            for branch, token in enumerate(recovery[row]):
                tokens += [token, *drafted[row][branch]]
                probs += [recovery_probs[row][branch], *drafted_probs[row][branch]]
            parents = async_tree_parents(len(chain[row]), counts[row], len(drafted[row][0]))
            records[request_id] = TreeRecord(tokens, parents, probs)
        return records

    @property
    def num_candidates(self) -> int:
        """How many candidates at each accepted length were ranked."""
        return self.copy.arrays()[_CANDIDATES].shape[-1]

    def rank_of(self, request_id: int, num_accepted: int, recovery_token: int) -> int | None:
        """Rank of the recovery token among the candidates at this accepted length, or their number if it is none of
        them; None if the request is not in this tree.
        """
        if request_id not in self.request_ids:
            return None
        candidates = self.copy.arrays()[_CANDIDATES][self.request_ids.index(request_id), num_accepted]
        found = (candidates == recovery_token).nonzero()[0]
        return int(found[0]) if len(found) else len(candidates)

    def schedule_of(self, request_id: int) -> tuple[int, ...] | None:
        """The fan-out that the request's tree was built with."""
        if request_id not in self.request_ids:
            return None
        return tuple(self.copy.arrays()[_COUNTS][self.request_ids.index(request_id)].tolist())
