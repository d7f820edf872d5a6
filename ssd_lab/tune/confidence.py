"""What spending a budget by confidence does to misses, replayed on the calibration's rounds."""

from __future__ import annotations

from dataclasses import dataclass, field

from ssd_lab.llm import LLM
from ssd_lab.simulate import OutcomeModel
from ssd_lab.simulate.confidence_replay import Opinions, opinions_along, replayed_confidence
from ssd_lab.strategies.fanout import Adaptive
from ssd_lab.trace import Trace
from ssd_lab.trace.outcomes import replayed_hits
from ssd_lab.tune.candidates import Candidate
from ssd_lab.tune.recorded_runs import Subject

LEAST_LOOKUPS = 40  # fewer tell nothing


@dataclass(frozen=True)
class Confidence:
    """trace: asynchronous rounds of k draft tokens; opinions: the draft's, of each lookup there."""

    trace: Trace = field(repr=False)
    opinions: Opinions = field(repr=False)
    k: int

    @classmethod
    def along(cls, subject: Subject, trace: Trace, k: int) -> Confidence | None:
        """From one forward of the draft over each round. None if there were too few."""
        with LLM(subject.draft, None, "autoregressive", progress=False, **subject.engine) as llm:
            opinions = opinions_along(trace, llm.score, k, subject.params.temperature)
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
