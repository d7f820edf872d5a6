"""What Saguaro sampling and spending branches by confidence change in the outcomes that were recorded without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ssd_lab.decoding.saguaro import expected_hit_and_acceptance
from ssd_lab.llm import LLM
from ssd_lab.simulate import OutcomeModel
from ssd_lab.simulate.coefficient import distributions_along
from ssd_lab.simulate.confidence_replay import DraftConfidence, confidence_along, replayed_confidence
from ssd_lab.strategies.fanout import Adaptive
from ssd_lab.trace import RequestRecord, Trace
from ssd_lab.trace.outcomes import replayed_hits
from ssd_lab.tune.candidates import Candidate
from ssd_lab.tune.recorded_runs import Subject

PLACES = 200  # of the texts
LEAST_LOOKUPS = 40  # fewer tell nothing
_LEAST_MISSES = 1e-6


@dataclass(frozen=True)
class Coefficients:
    """target_probs, draft_probs `[places, vocab]`: what either model would draw from, after temperature and filters."""

    target_probs: torch.Tensor = field(repr=False)
    draft_probs: torch.Tensor = field(repr=False)

    @classmethod
    def along(cls, subject: Subject, requests: Sequence[RequestRecord]) -> Coefficients:
        """From one forward of each model over the texts of these requests."""
        params = subject.params
        sampling = (params.temperature, params.top_k, params.top_p, params.min_p)
        found = []
        for model in (subject.target, subject.draft):
            with LLM(model, None, "autoregressive", progress=False, **subject.engine) as llm:
                found.append(distributions_along(requests, llm.score, sampling, PLACES))
        return cls(*found)

    def applied(self, model: OutcomeModel, candidate: Candidate) -> OutcomeModel:
        """The outcomes under the candidate's C, its branches spread evenly."""
        coefficient = candidate.fields["saguaro_c"]
        fan_out = candidate.mean_fan_out
        plain = expected_hit_and_acceptance(self.target_probs, self.draft_probs, fan_out, 1.0)
        scaled = expected_hit_and_acceptance(self.target_probs, self.draft_probs, fan_out, coefficient)
        missed = max(1 - plain.hit_after_rejection, _LEAST_MISSES)
        return model.with_factors(
            scaled.acceptance / plain.acceptance if plain.acceptance else 1.0,
            (1 - scaled.hit_after_rejection) / missed,
        )


@dataclass(frozen=True)
class Confidence:
    """trace: asynchronous rounds of k draft tokens; opinions: the draft's, of each lookup there."""

    trace: Trace = field(repr=False)
    opinions: DraftConfidence = field(repr=False)
    k: int

    @classmethod
    def along(cls, subject: Subject, trace: Trace, k: int) -> Confidence | None:
        """From one forward of the draft over each round. None if there were too few."""
        with LLM(subject.draft, None, "autoregressive", progress=False, **subject.engine) as llm:
            opinions = confidence_along(trace, llm.score, k, subject.params.temperature)
        return cls(trace, opinions, k) if len(opinions.confidences) >= LEAST_LOOKUPS else None

    def applied(self, model: OutcomeModel, candidate: Candidate) -> OutcomeModel:
        """The outcomes with as many misses fewer as an equal mean fan-out had in the replay."""
        budget = candidate.mean_fan_out * (self.k + 1)
        by_confidence, by_lengths = Adaptive(budget=budget), Adaptive(budget=budget, by_confidence=False)
        learner = by_confidence.confidence()
        assert learner is not None  # what the schedule is for
        missed = [
            sum(not hit for own in hits.values() for hit in own)
            for hits in (
                replayed_confidence(self.trace, self.opinions, learner, self.k),
                replayed_hits(self.trace, by_lengths.learner(self.k)),
            )
        ]
        factor = (missed[0] + 1) / (missed[1] + 1)  # of a few misses, not nothing
        return model.with_factors(1.0, factor, factor)
