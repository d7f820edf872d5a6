"""The rounds that the sections are about: synchronous speculation recorded once for each temperature, with the rank of
every recovery token among the draft's candidates.

A rank tells of any schedule whether it would have hit, and neither a hit nor the `jit` fallback changes what is drafted
(branch and chain draw each token from the same distribution at the same place), so one recording serves all schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ssd_lab import demo
from ssd_lab.api import LLM
from ssd_lab.bench.data import load_prompts
from ssd_lab.config import SamplingParams
from ssd_lab.decoding.sampling import SamplingBatch, target_distribution
from ssd_lab.errors import ConfigError
from ssd_lab.trace import RequestRecord, RoundRecord, SequenceRound, Trace

DATASETS = ("gsm8k", "humaneval", "ultrafeedback")
TEMPERATURES = (0.0, 0.7, 1.0)
UNIFORM = 3  # fan-out of the cache whose hits are noted in the rounds
LONGEST_PROMPT = 1200  # characters; the bundled models were trained on short texts
PLACES = 500  # of the text for which both distributions are kept

Score = Callable[[list[int]], torch.Tensor]


@dataclass(frozen=True)
class Recordings:
    """traces: by temperature, with ranks and with the hits of f = 3. target_probs, draft_probs: by temperature,
    `[places, vocab]` along the text (temperatures above 0). settings: how they were made.
    """

    k: int
    traces: dict[float, Trace]
    target_probs: dict[float, torch.Tensor] = field(repr=False)
    draft_probs: dict[float, torch.Tensor] = field(repr=False)
    settings: dict[str, Any]


def record(
    *,
    target: str | None = None,
    draft: str | None = None,
    k: int = 6,
    prompts: int = 24,
    max_tokens: int = 96,
    seed: int = 0,
    progress: bool = False,
    **fields: Any,
) -> Recordings:
    """Run `prompts` prompts of each bundled set at each temperature; fields: of `ssd_lab.LLM`.

    Raises ConfigError for fewer than two prompts: schedules are fitted on one half and tried on the other.
    """
    if prompts < 2:
        raise ConfigError(f"prompts is {prompts}; schedules are fitted on one half and tried on the other: at least 2")
    target, draft = target or str(demo.TARGET), draft or str(demo.DRAFT)
    texts = _texts(prompts, seed)
    runs: dict[float, Trace] = {}
    with LLM(target, draft, "sync_chain", k=k, progress=progress, **fields) as llm:
        for temperature in TEMPERATURES:
            params = [
                SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed * 10_000 + i)
                for i in range(len(texts))
            ]
            runs[temperature] = llm.run(texts, params).trace
        settings = {
            "target": target, "draft": draft, "k": k, "datasets": list(DATASETS), "prompts": len(texts),
            "max_tokens": max_tokens, "seed": seed, "dtype": str(llm.target.dtype),
        }  # fmt: skip
        target_probs = {t: _along(trace, llm.score, t) for t, trace in runs.items() if t > 0}
    with LLM(draft, None, "autoregressive", progress=progress, **fields) as llm:
        draft_probs = {t: _along(trace, llm.score, t) for t, trace in runs.items() if t > 0}
        traces = {t: with_hits(with_ranks(trace, llm.score), (UNIFORM,) * (k + 1)) for t, trace in runs.items()}
    return Recordings(k, traces, target_probs, draft_probs, settings)


def with_ranks(trace: Trace, draft_score: Score) -> Trace:
    """The trace with `recovery_rank` in every round whose recovery token entered the text, from one forward of the
    draft over each text. draft_score: logits `[tokens, vocab]` after each token.
    """
    ranks: dict[tuple[int, int], int] = {}
    by_request: dict[int, list[SequenceRound]] = {}
    for one in trace.rounds:
        for own in one.sequences:
            by_request.setdefault(own.request_id, []).append(own)
    for request in trace.requests:
        text = [*request.prompt_ids, *request.token_ids]
        logits = draft_score(text)
        for own in by_request.get(request.request_id, []):
            place = own.position + own.num_accepted  # of the recovery token
            if own.num_emitted == own.num_accepted + 1 and own.draft_tokens:
                refused = own.draft_tokens[own.num_accepted] if own.num_accepted < len(own.draft_tokens) else None
                ranks[request.request_id, own.position] = recovery_rank(logits[place - 1], own.recovery_token, refused)
    return _mapped(trace, lambda own: replace(own, recovery_rank=ranks.get((own.request_id, own.position))))


def with_hits(trace: Trace, fan_out: Sequence[int]) -> Trace:
    """The trace with the lookups of a cache that prepares `fan_out` candidates at each accepted length."""
    before: dict[int, bool | None] = {}

    def noted(own: SequenceRound) -> SequenceRound:
        hit = before.get(own.request_id)
        known = own.recovery_rank is not None and len(own.draft_tokens) == len(fan_out) - 1
        before[own.request_id] = own.recovery_rank < fan_out[own.num_accepted] if known else None  # type: ignore[operator]
        return replace(own, cache_hit=hit, origin="hit" if hit else "jit")

    return _mapped(trace, noted)


def recovery_rank(logits: torch.Tensor, token: int, refused: int | None) -> int:
    """Place of a token among the draft's candidates, given its logits `[vocab]`; the refused token is none."""
    above = logits > logits[token]
    rank = int(above.sum())
    return rank - int(refused is not None and bool(above[refused]))


def _mapped(trace: Trace, change: Callable[[SequenceRound], SequenceRound]) -> Trace:
    rounds = [
        RoundRecord(one.index, one.start_s, one.end_s, [change(own) for own in one.sequences], one.activities)
        for one in trace.rounds
    ]
    return Trace(trace.meta, trace.requests, rounds, trace.prefills)


def split(trace: Trace) -> tuple[Trace, Trace]:
    """Every other request in each part: one to fit, one to try."""
    return _of_requests(trace, 0), _of_requests(trace, 1)


def _of_requests(trace: Trace, parity: int) -> Trace:
    chosen = {r.request_id for i, r in enumerate(trace.requests) if i % 2 == parity}
    rounds = [
        RoundRecord(one.index, one.start_s, one.end_s, kept, one.activities)
        for one in trace.rounds
        if (kept := [own for own in one.sequences if own.request_id in chosen])
    ]
    return Trace(trace.meta, [r for r in trace.requests if r.request_id in chosen], rounds)


def _along(trace: Trace, score: Score, temperature: float) -> torch.Tensor:
    """What a model would draw from at each place of the generated texts, `[places, vocab]`, at most PLACES of them."""
    sampling = SamplingBatch.from_rows([(temperature, 0, 1.0, 0.0, 0)])
    per_request = max(1, PLACES // max(1, len(trace.requests)))
    parts = [
        target_distribution(_output_logits(request, score)[None, :per_request], sampling)[0]
        for request in trace.requests
    ]
    return torch.cat(parts)[:PLACES]


def _output_logits(request: RequestRecord, score: Score) -> torch.Tensor:
    logits = score([*request.prompt_ids, *request.token_ids])
    return logits[len(request.prompt_ids) - 1 : -1].float()


def _texts(prompts: int, seed: int) -> list[str]:
    def short(dataset: str) -> Iterator[str]:
        return (p.text for p in load_prompts(dataset, None, seed=seed) if len(p.text) <= LONGEST_PROMPT)

    return [text for dataset in DATASETS for text, _ in zip(short(dataset), range(prompts), strict=False)]
