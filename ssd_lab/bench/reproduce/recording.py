"""The rounds that the sections are about: asynchronous speculation recorded once for each temperature, with the rank of
every recovery token among the draft's candidates.

A rank tells of any schedule whether it would have hit, and neither a hit nor the `jit` fallback changes what is drafted
(branch and chain draw each token from the same distribution at the same place), so one recording serves all schedules
over accepted lengths. Spending a budget by confidence needs the draft's probabilities: that is run for each budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ssd_lab import demo
from ssd_lab.bench.data import load_prompts
from ssd_lab.config import SamplingParams
from ssd_lab.decoding.sampling import SamplingBatch, target_distribution
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.trace import RequestRecord, RoundRecord, SequenceRound, Trace

DATASETS = ("gsm8k", "humaneval", "ultrafeedback")
TEMPERATURES = (0.0, 0.7, 1.0)
UNIFORM = 3  # fan-out of the cache whose hits are noted in the rounds
LONGEST_PROMPT = 1200  # characters; the bundled models were trained on short texts
PLACES = 500  # of the text for which both distributions are kept

Score = Callable[[list[int]], torch.Tensor]


@dataclass(frozen=True)
class Recordings:
    """traces: by temperature, with ranks and with the hits of f = 3. by_confidence: the same prompts with a fan-out by
    confidence, by temperature and budget. target_probs, draft_probs: by temperature,
    `[places, vocab]` along the text (temperatures above 0). settings: how they were made.
    """

    k: int
    traces: dict[float, Trace]
    by_confidence: dict[tuple[float, int], Trace] = field(repr=False)
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
    budgets: Sequence[int] = (),
    progress: bool = False,
    **fields: Any,
) -> Recordings:
    """Run `prompts` prompts of each bundled set at each temperature; budgets: also by confidence; fields: of
    `ssd_lab.LLM`.

    Raises ConfigError for fewer than two prompts: schedules are fitted on one half and tried on the other.
    """
    if prompts < 2:
        raise ConfigError(f"prompts is {prompts}; schedules are fitted on one half and tried on the other: at least 2")
    target, draft = target or str(demo.TARGET), draft or str(demo.DRAFT)
    texts = _texts(prompts, seed)

    def run(llm: LLM, temperature: float) -> Trace:
        params = [
            SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed * 10_000 + i)
            for i in range(len(texts))
        ]
        return llm.run(texts, params).trace

    with LLM(target, draft, "async_tree", k=k, f=UNIFORM, progress=progress, **fields) as llm:
        traces = {temperature: run(llm, temperature) for temperature in TEMPERATURES}
        settings = {
            "target": target, "draft": draft, "k": k, "datasets": list(DATASETS), "prompts": len(texts),
            "max_tokens": max_tokens, "seed": seed, "dtype": str(llm.target.dtype),
        }  # fmt: skip
        target_probs = {t: _along(trace, llm.score, t) for t, trace in traces.items() if t > 0}
    with LLM(draft, None, "autoregressive", progress=progress, **fields) as llm:
        draft_probs = {t: _along(trace, llm.score, t) for t, trace in traces.items() if t > 0}
    by_confidence: dict[tuple[float, int], Trace] = {}
    for budget in budgets:
        fan_out = {"kind": "adaptive", "budget": budget}
        with LLM(target, draft, "async_tree", k=k, fan_out=fan_out, progress=progress, **fields) as llm:
            by_confidence |= {(temperature, budget): run(llm, temperature) for temperature in TEMPERATURES}
    return Recordings(k, traces, by_confidence, target_probs, draft_probs, settings)


def with_hits(trace: Trace, fan_out: Sequence[int]) -> Trace:
    """The trace with the lookups of a cache that prepares `fan_out` candidates at each accepted length."""
    before: dict[int, bool | None] = {}

    def noted(own: SequenceRound) -> SequenceRound:
        hit = before.get(own.request_id)
        known = own.recovery_rank is not None and len(own.draft_tokens) == len(fan_out) - 1
        before[own.request_id] = own.recovery_rank < fan_out[own.num_accepted] if known else None  # type: ignore[operator]
        return replace(own, cache_hit=hit, origin="hit" if hit else "jit")

    return _mapped(trace, noted)


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
