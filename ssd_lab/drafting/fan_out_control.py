"""The fan-out of a worker's trees: chosen before each round, learned from its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ssd_lab.drafting.speculation_cache import PreparedRow
from ssd_lab.learning.fan_out_learner import FanOutSchedule, ScheduleLearner
from ssd_lab.phases.draft_tree import BranchShape


@dataclass(frozen=True)
class _Row:
    """A sequence of the latest tree: did its round begin with a hit, does it sample, how many tokens are verified."""

    hit: bool
    sampled: bool
    k: int
    predicted: float | None


class FanOutControl:
    """Holds what learns. One lives as long as its worker."""

    def __init__(self, source: FanOutSchedule) -> None:
        self._source = source
        self._learners: dict[int, ScheduleLearner] = {}
        self._confidence = source.confidence()
        self._rows: dict[int, _Row] = {}

    def shape(self, k: int, depth: int) -> BranchShape:
        """The tree of a round that verifies k tokens."""
        learner = self._learner(k)
        return BranchShape(learner.budget, depth, learner.widest, self._confidence is not None)

    def widest(self, k: int) -> int:
        """A bound on the fan-outs of rounds that verify k tokens."""
        return self._learner(k).widest

    def counts(self, hit: bool, k: int) -> tuple[int, ...]:
        """Fan-out at accepted lengths 0..k of a round that began so; by confidence, what is usual there."""
        if self._confidence is not None:
            return tuple(min(count, self.widest(k)) for count in self._confidence.usual_counts(hit, k))
        return self._learner(k).counts(hit)

    def remember(self, request_ids: Sequence[int], hits: Sequence[bool], sampled: Sequence[bool], k: int) -> None:
        """These sequences have a tree now, by `listed`: `observe` goes by it."""
        predicted: dict[bool, float | None] = dict.fromkeys(hits)
        if self._confidence is None:
            predicted = {hit: self._learner(k).predicted_hit_rate(hit) for hit in predicted}
        self._rows = {
            request_id: _Row(hit, samples, k, predicted[hit])
            for request_id, hit, samples in zip(request_ids, hits, sampled, strict=True)
        }

    def goes_by_hits(self, k: int) -> bool:
        """Do rows that began with a hit have another fan-out than the others?"""
        return self._confidence is None and self._learner(k).counts(True) != self._learner(k).counts(False)

    def listed(self, hits: Sequence[bool], sampled: Sequence[bool], k: int) -> torch.Tensor:
        """The tree's fan_out (`TreeInputs`) for rows that begin so, by what is known now."""
        if self._confidence is None:
            return torch.tensor([self._learner(k).counts(hit) for hit in hits])
        return torch.tensor([self._confidence.table(samples) for samples in sampled])

    def observe(self, request_id: int, prepared: PreparedRow, num_accepted: int, recovery_token: int) -> float | None:
        """The outcome of a round with a tree is known; returns the hit rate that was predicted for it."""
        row = self._rows.pop(request_id, None)
        if row is None:
            return None
        rank = prepared.rank_of(num_accepted, recovery_token)
        if self._confidence is None:
            known = len(prepared.candidates[num_accepted]) if rank is None else rank
            self._learner(row.k).observe(row.hit, num_accepted, known, row.k)
            return row.predicted
        if prepared.confidences is not None and prepared.candidate_probs is not None:
            probs = prepared.candidate_probs[num_accepted]
            self._confidence.observe(row.sampled, prepared.confidences.tolist(), probs, num_accepted, rank)
            self._confidence.built(row.hit, prepared.counts.tolist())
        return prepared.hit_chance

    def _learner(self, k: int) -> ScheduleLearner:
        if k not in self._learners:
            self._learners[k] = self._source.learner(k)
        return self._learners[k]
