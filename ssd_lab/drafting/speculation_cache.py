"""The speculation cache: outcome -> the draft tokens prepared for it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ssd_lab.decoding.branches import Found
from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.execution.structure import flatten
from ssd_lab.phases.draft_tree import LookupInputs, LookupPhase
from ssd_lab.rounds.drafted import Drafted, DraftTree
from ssd_lab.rounds.runner import Runner

_COUNTS, _PREPARED = 0, 1  # places in the copy


@dataclass(frozen=True)
class Entry:
    """Where a prepared continuation lies: `tree.drafted.tokens[row, branch]`, or `kept` `[1, depth]`, apart from any
    tree.
    """

    row: int
    branch: int
    kept: Drafted | None = None


@dataclass(frozen=True)
class Prepared:
    """What there is for a row's outcome. exact: the continuation of that outcome (None: a miss). stale: then one of the
    same accepted length and another recovery token, if there is one.
    """

    exact: Entry | None = None
    stale: Entry | None = None


@dataclass(frozen=True)
class KeptAnswer:
    """What a sequence that is away will be answered with. predicted: how likely the hit was thought to be."""

    answer: Prepared
    predicted: float | None


@dataclass(frozen=True)
class PreparedRow:
    """What was prepared for one sequence, on the host, for learning: one row of `DraftTree`'s fields of the same
    names.
    """

    counts: np.ndarray
    candidates: np.ndarray
    confidences: np.ndarray | None = None
    candidate_probs: np.ndarray | None = None
    hit_chance: float | None = None

    def rank_of(self, num_accepted: int, recovery_token: int) -> int | None:
        """Place of the recovery token among the candidates at this accepted length; None if it is none of them."""
        found = (self.candidates[num_accepted] == recovery_token).nonzero()[0]
        return int(found[0]) if len(found) else None


class SpeculationCache:
    """Holds the branches of the latest tree. A new tree replaces the old one: an outcome is asked for once. What
    answers sequences that are away is kept apart.

    Outcomes are looked up where they lie, on the host (`look_up`) or on the draft's device (`found`), by the same
    phase. A tree that is still growing on a device is waited for on the host only. Its way to the host begins with
    `send`, before it is overwritten.
    """

    def __init__(self) -> None:
        self.tree: DraftTree | None = None
        self._copy: HostCopy | None = None
        self._first = 0  # of its arrays
        self._rows: dict[int, int] = {}  # of each request in the tree
        self._kept: dict[int, KeptAnswer] = {}

    def store(self, request_ids: Sequence[int], tree: DraftTree) -> None:
        """Keep the branches of these sequences, row by row (rows of padding follow them)."""
        self.tree = tree
        self._rows = {request_id: row for row, request_id in enumerate(request_ids)}
        self._copy = None

    def send(self, beside: Sequence[torch.Tensor] = ()) -> HostCopy | None:
        """Let the latest tree come to the host, if it does not yet; returns its way there, with what is `beside` it
        first, or None if it is on its way without that.
        """
        if self._copy is not None or self.tree is None:
            return None
        confidence, _ = flatten(self.tree.confidence)
        self._first = len(beside)
        self._copy = HostCopy(*beside, self.tree.counts, self.tree.keys, self.tree.candidates, *confidence)
        return self._copy

    def prepared(self, request_id: int) -> PreparedRow | None:
        """What there is to learn from, if the latest tree has this sequence."""
        row = self._rows.get(request_id)
        if row is None:
            return None
        counts, _, candidates, *confidence = self._arrays()
        thoughts = (confidence[0][row], confidence[1][row], float(confidence[2][row])) if confidence else ()
        return PreparedRow(counts[row], candidates[row], *thoughts)

    def look_up(
        self, request_ids: Sequence[int], num_accepted: Sequence[int | None], recovery_tokens: Sequence[int]
    ) -> list[Prepared]:
        """What there is for the outcome of each sequence; nothing where no accepted length is known."""
        answers = [Prepared()] * len(request_ids)
        fresh: list[int] = []
        for index, (own, accepted) in enumerate(zip(request_ids, num_accepted, strict=True)):
            if accepted is not None and (kept := self._kept.get(own)) is not None:
                answers[index] = kept.answer
            elif accepted is not None and own in self._rows:
                fresh.append(index)
        if fresh:
            rows = [self._rows[request_ids[index]] for index in fresh]
            outcomes = torch.tensor([[num_accepted[i], recovery_tokens[i]] for i in fresh])
            for index, row, branch in zip(fresh, rows, self._branches(rows, outcomes), strict=True):
                exact = None if branch is None else Entry(row, branch)
                answers[index] = Prepared(exact, None if exact else self._likeliest(row, num_accepted[index]))
        return answers

    def _branches(self, rows: list[int], outcomes: torch.Tensor) -> list[int | None]:
        """The branch of each row of the tree for its outcome, None for a miss."""
        prepared = torch.from_numpy(self._arrays()[_PREPARED])
        if rows != list(range(len(prepared))):  # mostly the sequences are those of the round before
            prepared = prepared[rows]
        found = LookupPhase().run(None, LookupInputs(prepared, outcomes))
        each = zip(found.hit.tolist(), found.branch.tolist(), strict=True)
        return [branch if hit else None for hit, branch in each]

    def found(
        self, request_ids: list[int], decided: torch.Tensor, runner: Runner, *, stale: bool = False
    ) -> Found | None:
        """The branches for outcomes on a device, of all rows of the latest tree in their order; None if it has others.
        decided: see `Lookup`; its rows and the tree's may be padded to different numbers. stale: may a stale branch
        answer a miss?
        """
        if self.tree is None or request_ids != list(self._rows):
            return None
        rows = min(len(self.tree.keys), len(decided))
        counts = self.tree.counts[:rows] if stale else None
        return runner.run(LookupPhase(), LookupInputs(self.tree.keys[:rows], decided[:rows, :2], counts))

    def drop(self) -> None:
        """Forget the latest tree."""
        self.tree, self._rows = None, {}

    def _arrays(self) -> list[np.ndarray]:
        self.send()
        return [] if self._copy is None else self._copy.arrays()[self._first :]

    def _likeliest(self, row: int, num_accepted: int | None) -> Entry | None:
        """The first branch at this accepted length."""
        counts = self._arrays()[_COUNTS][row]
        if num_accepted is None or not counts[num_accepted]:
            return None
        return Entry(row, int(counts[:num_accepted].sum()))

    def keep(self, request_id: int, num_accepted: int, recovery_token: int, predicted: float | None) -> None:
        """Keep what the latest tree holds for this sequence, whose outcome is known and whose next round is not the
        next one.
        """
        (found,) = self.look_up([request_id], [num_accepted], [recovery_token])
        entry = None if self.tree is None else found.exact or found.stale
        if entry is not None and self.tree is not None:
            place = sent([[entry.row], [entry.branch]], self.tree.drafted.tokens.device)
            entry = replace(entry, kept=self.tree.drafted.at(place[0], place[1]))
        answer = Prepared(stale=entry) if found.exact is None else Prepared(exact=entry)
        self._kept[request_id] = KeptAnswer(answer, predicted)

    def kept(self, request_id: int) -> KeptAnswer | None:
        """What was kept for this sequence."""
        return self._kept.get(request_id)

    def keep_only(self, request_ids: Container[int]) -> None:
        """Nobody else will come back, or is back already."""
        self._kept = {own: answer for own, answer in self._kept.items() if own in request_ids}
