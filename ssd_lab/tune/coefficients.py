"""What a Saguaro coefficient C does to acceptance and misses, from both models' distributions along the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ssd_lab.decoding.saguaro import expected_hit_and_acceptance
from ssd_lab.decoding.sampling import SamplingBatch, target_distribution
from ssd_lab.llm import LLM
from ssd_lab.simulate import OutcomeModel
from ssd_lab.trace import RequestRecord
from ssd_lab.tune.candidates import Candidate
from ssd_lab.tune.recorded_runs import Subject

PLACES = 200  # of the texts
_LEAST_MISSES = 1e-6


@dataclass(frozen=True)
class Coefficients:
    """target_probs, draft_probs `[places, vocab]`: what either model would draw from, after temperature and filters."""

    target_probs: torch.Tensor = field(repr=False)
    draft_probs: torch.Tensor = field(repr=False)

    @classmethod
    def along(cls, subject: Subject, requests: Sequence[RequestRecord]) -> Coefficients:
        """From one forward of each model over the texts of these requests."""
        models = (subject.target, subject.draft)
        return cls(*(_along(subject, model, requests) for model in models))

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


def _along(subject: Subject, model: object, requests: Sequence[RequestRecord]) -> torch.Tensor:
    params = subject.params
    sampling = SamplingBatch.from_rows([(params.temperature, params.top_k, params.top_p, params.min_p, 0)])
    per_request = max(1, PLACES // max(1, len(requests)))
    parts = []
    with LLM(model, None, "autoregressive", progress=False, **subject.engine) as llm:  # type: ignore[arg-type]
        for request in requests:
            logits = llm.score([*request.prompt_ids, *request.token_ids])[len(request.prompt_ids) - 1 : -1]
            parts.append(target_distribution(logits[None, :per_request].float().cpu(), sampling)[0])
    return torch.cat(parts)[:PLACES]
