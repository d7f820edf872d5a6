"""The speculation cache: outcome -> the draft tokens prepared for it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.execution.structure import flatten
from ssd_lab.rounds.drafted import Drafted, DraftTree


@dataclass(frozen=True)
class Entry:
    """Where a prepared continuation lies: `tree.drafted.tokens[row, branch]`, or `kept` `[1, depth]`, apart from any
    tree.
    """

    row: int
    branch: int
    kept: Drafted | None = None


@dataclass(frozen=True)
class KeptAnswer:
    """What a sequence that is away will be answered with: the branch for its outcome (`hit`), or the likeliest one at
    the same accepted length (None: there is none). predicted: how likely the hit was thought to be.
    """

    hit: bool
    entry: Entry | None
    predicted: float | None


@dataclass(frozen=True)
class PreparedRow:
    """What was prepared for one sequence, on the host: one row of `DraftTree`'s fields of the same names."""

    row: int
    counts: np.ndarray
    recovery_tokens: np.ndarray
    candidates: np.ndarray
    confidences: np.ndarray | None = None
    candidate_probs: np.ndarray | None = None
    hit_chance: float | None = None

    def branch_of(self, num_accepted: int, recovery_token: int) -> int | None:
        """The branch that assumes this outcome."""
        if not 0 <= num_accepted < len(self.counts):
            return None
        start = int(self.counts[:num_accepted].sum())
        found = (self.recovery_tokens[start : start + int(self.counts[num_accepted])] == recovery_token).nonzero()[0]
        return start + int(found[0]) if len(found) else None

    def likeliest_branch(self, num_accepted: int) -> int | None:
        """The first branch at this accepted length."""
        if not 0 <= num_accepted < len(self.counts) or not self.counts[num_accepted]:
            return None
        return int(self.counts[:num_accepted].sum())

    def rank_of(self, num_accepted: int, recovery_token: int) -> int | None:
        """Place of the recovery token among the candidates at this accepted length; None if it is none of them."""
        found = (self.candidates[num_accepted] == recovery_token).nonzero()[0]
        return int(found[0]) if len(found) else None


class SpeculationCache:
    """Holds the branches of the latest tree. A new tree replaces the old one: an outcome is asked for once. What
    answers sequences that are away is kept apart.

    A tree that is still growing on a device is waited for only when it is asked for.
    """

    def __init__(self) -> None:
        self.tree: DraftTree | None = None
        self._waiting: tuple[Sequence[int], HostCopy] | None = None
        self._rows: dict[int, PreparedRow] = {}
        self._kept: dict[int, KeptAnswer] = {}

    def store(self, request_ids: Sequence[int], tree: DraftTree) -> None:
        """Keep the branches of these sequences, row by row (rows of padding follow them)."""
        self.tree = tree
        confidence, _ = flatten(tree.confidence)
        self._waiting = (list(request_ids), HostCopy(tree.counts, tree.recovery_tokens, tree.candidates, *confidence))

    def prepared(self, request_id: int) -> PreparedRow | None:
        """All that was prepared for this sequence in the latest tree."""
        if self._waiting is not None:
            request_ids, copy = self._waiting
            self._waiting = None
            counts, recovery, candidates, *confidence = copy.arrays()
            self._rows = {}
            for row, own in enumerate(request_ids):
                thoughts = (confidence[0][row], confidence[1][row], float(confidence[2][row])) if confidence else ()
                self._rows[own] = PreparedRow(row, counts[row], recovery[row], candidates[row], *thoughts)
        return self._rows.get(request_id)

    def keep(self, request_id: int, num_accepted: int, recovery_token: int, predicted: float | None) -> None:
        """Keep what the latest tree holds for this sequence, whose outcome is known and whose next round is not the
        next one.
        """
        entry = self.find(request_id, num_accepted, recovery_token)
        nearest = entry or self.find_nearest(request_id, num_accepted)
        if nearest is not None and self.tree is not None:
            place = sent([[nearest.row], [nearest.branch]], self.tree.drafted.tokens.device)
            nearest = replace(nearest, kept=self.tree.drafted.at(place[0], place[1]))
        self._kept[request_id] = KeptAnswer(entry is not None, nearest, predicted)

    def kept(self, request_id: int) -> KeptAnswer | None:
        """What was kept for this sequence."""
        return self._kept.get(request_id)

    def keep_only(self, request_ids: Container[int]) -> None:
        """Nobody else will come back, or is back already."""
        self._kept = {own: answer for own, answer in self._kept.items() if own in request_ids}

    def find(self, request_id: int, num_accepted: int, recovery_token: int) -> Entry | None:
        """The continuation prepared for this outcome, or None: a miss."""
        if (kept := self._kept.get(request_id)) is not None:
            return kept.entry if kept.hit else None
        own = self.prepared(request_id)
        branch = None if own is None else own.branch_of(num_accepted, recovery_token)
        return None if own is None or branch is None else Entry(own.row, branch)

    def find_nearest(self, request_id: int, num_accepted: int) -> Entry | None:
        """A continuation prepared for the same accepted length and another recovery token: stale, but at hand."""
        if (kept := self._kept.get(request_id)) is not None:
            return None if kept.hit else kept.entry
        own = self.prepared(request_id)
        branch = None if own is None else own.likeliest_branch(num_accepted)
        return None if own is None or branch is None else Entry(own.row, branch)
