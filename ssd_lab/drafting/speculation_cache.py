"""The speculation cache: outcome -> the draft tokens prepared for it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.execution.structure import flatten
from ssd_lab.phases.lookup import LookupInputs, LookupPhase
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
class Prepared:
    """What there is for a row's outcome. exact: the continuation of that outcome (None: a miss). stale: one of the same
    accepted length and another recovery token.
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

    Outcomes are looked up on the host, where they lie. A tree that is still growing on a device is waited for only
    then.
    """

    def __init__(self) -> None:
        self.tree: DraftTree | None = None
        self._copy = HostCopy()
        self._rows: dict[int, int] = {}  # of each request in the tree
        self._kept: dict[int, KeptAnswer] = {}

    def store(self, request_ids: Sequence[int], tree: DraftTree) -> None:
        """Keep the branches of these sequences, row by row (rows of padding follow them)."""
        self.tree = tree
        self._rows = {request_id: row for row, request_id in enumerate(request_ids)}
        confidence, _ = flatten(tree.confidence)
        self._copy = HostCopy(tree.counts, tree.recovery_tokens, tree.candidates, *confidence)

    def prepared(self, request_id: int) -> PreparedRow | None:
        """What there is to learn from, if the latest tree has this sequence."""
        row = self._rows.get(request_id)
        if row is None:
            return None
        counts, _, candidates, *confidence = self._copy.arrays()
        thoughts = (confidence[0][row], confidence[1][row], float(confidence[2][row])) if confidence else ()
        return PreparedRow(counts[row], candidates[row], *thoughts)

    def look_up(
        self, request_ids: Sequence[int], num_accepted: Sequence[int | None], recovery_tokens: Sequence[int]
    ) -> list[Prepared]:
        """What there is for the outcome of each sequence; nothing where no accepted length is known."""
        answers = [Prepared()] * len(request_ids)
        fresh: list[tuple[int, int, int, int]] = []  # place in the answers, row of the tree, outcome
        for index, (own, accepted, token) in enumerate(zip(request_ids, num_accepted, recovery_tokens, strict=True)):
            if accepted is None:
                continue
            if (kept := self._kept.get(own)) is not None:
                answers[index] = kept.answer
            elif (row := self._rows.get(own)) is not None:
                fresh.append((index, row, accepted, token))
        if fresh:
            places, rows, accepted_lengths, tokens = torch.tensor(fresh).unbind(1)
            counts, recovery, *_ = (torch.from_numpy(array) for array in self._copy.arrays()[:2])
            found = LookupPhase().run(None, LookupInputs(counts[rows], recovery[rows], accepted_lengths, tokens))
            each = zip(places.tolist(), rows.tolist(), found.branch.tolist(), found.nearest.tolist(), strict=True)
            for index, row, branch, nearest in each:
                answers[index] = Prepared(
                    None if branch < 0 else Entry(row, branch), None if nearest < 0 else Entry(row, nearest)
                )
        return answers

    def keep(self, request_id: int, num_accepted: int, recovery_token: int, predicted: float | None) -> None:
        """Keep what the latest tree holds for this sequence, whose outcome is known and whose next round is not the
        next one.
        """
        (found,) = self.look_up([request_id], [num_accepted], [recovery_token])
        entry = found.exact or found.stale
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
