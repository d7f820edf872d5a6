"""Echoed prompts, and their log-probabilities by one plain forward."""

from __future__ import annotations

from typing import Any

from ssd_lab.engine.logprobs import token_logprobs
from ssd_lab.engine.submission import Submission
from ssd_lab.serve.answers import Choice
from ssd_lab.serve.job import Job


def echoed(job: Job, submission: Submission) -> list[Choice]:
    """A choice for each text with its prompt in it. Waits for the engine where log-probabilities are wanted."""
    tokenizer = job.served.llm.target.tokenizer
    choices: list[Choice] = []
    for place in range(0, len(submission.requests), job.n):
        request = submission.requests[place]
        texts = [f"token_id:{i}" if tokenizer is None else tokenizer.token_text(i) for i in request.prompt_ids]
        text = request.prompt
        if text is None:
            text = "" if tokenizer is None else tokenizer.decode(request.prompt_ids, skip_special_tokens=False)
        entries: list[Any] = []
        if job.logprobs is not None:
            logits = job.served.llm.score(request.prompt_ids)
            entries = [None, *token_logprobs(logits, request.prompt_ids[1:], max(1, job.logprobs))]
        choices += [Choice(echoed=text, logprobs=list(entries), echoed_tokens=texts) for _ in range(job.n)]
    return choices
