"""The counts that end an answer: usage, and how speculation went in the shape that vLLM has for it."""

from __future__ import annotations

from typing import Any

from ssd_lab.engine.submission import Submission
from ssd_lab.serve.job import Job
from ssd_lab.trace.totals import Totals


def usage(job: Job, submission: Submission) -> dict[str, Any]:
    """Tokens of the request. Each prompt counts once, however many texts are made of it. Of a predicted text what was
    drafted from it and is in the answer, or is not, counts as such, and nothing that was drafted otherwise.
    """
    prompts = sum(len(request.prompt_ids) for request in submission.requests[:: job.n])
    made = sum(len(sequence.output_ids) for sequence in submission.sequences) if job.generates else 0
    counts: dict[str, Any] = {"prompt_tokens": prompts, "completion_tokens": made, "total_tokens": prompts + made}
    if job.expected is not None:
        drafted = submission.totals.drafted_by.get("expected", 0)
        kept = submission.totals.kept_by.get("expected", 0)
        counts["completion_tokens_details"] = {
            "accepted_prediction_tokens": kept,
            "rejected_prediction_tokens": drafted - kept,
        }
    return counts


def metrics(job: Job, submission: Submission) -> dict[str, Any] | None:
    """Of a request for one text, as vLLM has it; None for others."""
    if len(submission.requests) != 1:
        return None
    return {"speculative_decoding": speculation(submission.totals, job.served.llm.strategy.lookahead)}


def speculation(totals: Totals, lookahead: int) -> dict[str, Any] | None:
    """Rounds with a draft, what was drafted and what was accepted in them, tokens past a stop included. None for a
    strategy that drafts nothing.
    """
    if not lookahead:
        return None
    by_length = {drafted: counts for drafted, counts in enumerate(totals.outcomes) if drafted and any(counts)}
    histogram = [sum(counts[a] for counts in by_length.values() if a < len(counts)) for a in range(lookahead + 1)]
    steps = sum(histogram)
    return {
        "mean_acceptance_length": 1 + totals.accepted / steps if steps else 1.0,
        "draft_acceptance_rate": totals.accepted / totals.drafted if totals.drafted else 0.0,
        "acceptance_histogram": histogram,
        "acceptance_histogram_by_draft_length": {str(drafted): counts for drafted, counts in by_length.items()},
        "num_spec_steps": steps,
        "num_accepted_draft_tokens": totals.accepted,
        "num_draft_tokens": totals.drafted,
        "num_spec_tokens": lookahead,
    }
