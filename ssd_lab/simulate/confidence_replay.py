"""Spending a budget by confidence, replayed on recorded rounds: with what the draft thought of each of them, any budget
can be tried on the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ssd_lab.decoding.branches import best_counts, draft_confidence, outcome_chances
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.learning.confidence_fan_out import ConfidenceFanOut
from ssd_lab.trace import Trace
from ssd_lab.trace.outcomes import looked_up

CANDIDATES = 64  # at each accepted length, as many as a recorded rank tells apart


@dataclass(frozen=True)
class DraftConfidence:
    """One entry for each lookup of a trace, in the trace's order.

    confidences `[lookups, k]`: the draft's probability of each token that it drafted; candidate_probs `[lookups, k + 1,
    candidates]`: of the likeliest recovery tokens after each prefix, given that the drafted token is refused.
    """

    temperature: float
    confidences: np.ndarray
    candidate_probs: np.ndarray

    def save(self, path: Path) -> None:
        """Write as `.npz`."""
        np.savez_compressed(
            path,
            temperature=self.temperature,
            confidences=self.confidences,
            candidate_probs=self.candidate_probs,
        )

    @classmethod
    def load(cls, path: Path) -> DraftConfidence:
        """Read what `save` wrote."""
        with np.load(path) as held:
            return cls(float(held["temperature"]), held["confidences"], held["candidate_probs"])


def confidence_along(
    trace: Trace, score: Callable[[list[int]], torch.Tensor], k: int, temperature: float
) -> DraftConfidence:
    """From one forward of the draft over each round's text and draft tokens; score: its logits after each token."""
    texts = {r.request_id: [*r.prompt_ids, *r.token_ids] for r in trace.requests}
    own_temperature = torch.tensor([temperature])
    confidences, probs = [np.empty((0, k), np.float32)], [np.empty((0, k + 1, CANDIDATES), np.float32)]
    for record in (own for rows in looked_up(trace, k) for own in rows):
        text = [*texts[record.request_id][: record.position], *record.draft_tokens]
        logits = score(text)[-k - 1 :].float().cpu()[None]
        drafted = torch.tensor([record.draft_tokens])
        candidates = recovery_candidates(logits, drafted, CANDIDATES)
        own = draft_confidence(logits, drafted, candidates, own_temperature)
        confidences.append(own[0].numpy())
        probs.append(own[1].numpy())
    return DraftConfidence(temperature, np.concatenate(confidences), np.concatenate(probs))


def replayed_confidence(
    trace: Trace, recorded: DraftConfidence, learner: ConfidenceFanOut, k: int
) -> dict[int, list[bool]]:
    """By request, whether each lookup would have been a hit if this learner had spent its budget on the rounds,
    learning from each as it does in a run.
    """
    sampled, place = recorded.temperature > 0, 0
    hits: dict[int, list[bool]] = {}
    for rows in looked_up(trace, k):
        own = slice(place, place + len(rows))
        place += len(rows)
        confidences, probs = recorded.confidences[own], recorded.candidate_probs[own]
        tables = torch.tensor([learner.table(sampled)] * len(rows))
        widest = min(learner.budget, CANDIDATES)
        chances = outcome_chances(torch.from_numpy(confidences), torch.from_numpy(probs[..., :widest]), tables)
        counts = best_counts(chances, learner.budget)[0].tolist()
        for i, record in enumerate(rows):
            accepted, rank = record.num_accepted, record.recovery_rank
            assert rank is not None  # of a lookup
            hits.setdefault(record.request_id, []).append(rank < counts[i][accepted])
            learner.observe(
                sampled, confidences[i].tolist(), probs[i, accepted], accepted, rank if rank < CANDIDATES else None
            )
    return hits
