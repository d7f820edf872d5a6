"""Which Saguaro coefficient C pays on a machine: fewer accepted tokens, more hits (arXiv 2603.03251, Theorem 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssd_lab.errors import ConfigError
from ssd_lab.simulate.closed_form import expected_tokens, speedup_async_batch
from ssd_lab.trace import RequestRecord

if TYPE_CHECKING:
    import torch

COEFFICIENTS = tuple(i / 20 for i in range(20, -1, -1))
_REFINEMENTS = 4  # halvings of the interval around the best of a grid


@dataclass(frozen=True)
class RoundTimes:
    """Times of an asynchronous round, in units of one verification, for a batch. fallback_tokens: tokens of a round
    that began with the fallback (None: as many as one that began with a hit, as `jit` gives).
    """

    tree: float
    fallback: float
    batch: int = 1
    fallback_tokens: float | None = None


@dataclass(frozen=True)
class CoefficientPoint:
    """What one C gives. speed: tokens per verification time and sequence."""

    coefficient: float
    acceptance: float
    hit_rate: float
    tokens: float
    speed: float


def distributions_along(
    requests: Sequence[RequestRecord],
    score: Callable[[list[int]], torch.Tensor],
    sampling: tuple[float, int, float, float],
    places: int,
) -> torch.Tensor:
    """What a model would draw from along the generated texts, `[places, vocab]` on the CPU, evenly from all requests.

    score: `LLM.score`, logits of token ids. sampling: temperature, top_k, top_p, min_p. places: how many at most.
    """
    import torch

    from ssd_lab.decoding.sampling import SamplingBatch, target_distribution

    rows = SamplingBatch.from_rows([(*sampling, 0)])
    each = max(1, places // max(1, len(requests)))
    parts = []
    for request in requests:
        logits = score([*request.prompt_ids, *request.token_ids])[len(request.prompt_ids) - 1 : -1]
        parts.append(target_distribution(logits[None, :each].float().cpu(), rows)[0])
    return torch.cat(parts)[:places]


def coefficient_point(
    target_probs: torch.Tensor, draft_probs: torch.Tensor, fan_out: int, k: int, coefficient: float, times: RoundTimes
) -> CoefficientPoint:
    """Acceptance, hit rate and speed at one C, from distributions `[places, vocab]` recorded along the text."""
    from ssd_lab.decoding.saguaro import expected_hit_and_acceptance  # here, because it needs torch

    if not 0 <= coefficient <= 1:
        raise ConfigError(f"saguaro_c is {coefficient}; it lies within 0..1, and 1 switches it off")
    found = expected_hit_and_acceptance(target_probs, draft_probs, fan_out, coefficient)
    tokens, hit_rate = expected_tokens(found.acceptance, k), found.hit_rate(k)
    speed = speedup_async_batch(
        batch=times.batch,
        hit_rate=min(1.0, hit_rate),
        tokens_hit=tokens,
        tokens_miss=tokens if times.fallback_tokens is None else times.fallback_tokens,
        draft_time=times.tree,
        fallback_time=times.fallback,
    )
    return CoefficientPoint(coefficient, found.acceptance, hit_rate, tokens, speed)


def coefficient_curve(
    target_probs: torch.Tensor,
    draft_probs: torch.Tensor,
    *,
    fan_out: int,
    k: int,
    times: RoundTimes,
    coefficients: Sequence[float] = COEFFICIENTS,
) -> list[CoefficientPoint]:
    """One point for each C, in the order given."""
    return [coefficient_point(target_probs, draft_probs, fan_out, k, c, times) for c in coefficients]


def suggest_c(
    target_probs: torch.Tensor, draft_probs: torch.Tensor, *, fan_out: int, k: int, times: RoundTimes
) -> CoefficientPoint:
    """The C that gives the most tokens per second: the best of a grid, then halving steps around it.

    Never worse than C = 1, which is in the grid.
    """

    def at(coefficient: float) -> CoefficientPoint:
        return coefficient_point(target_probs, draft_probs, fan_out, k, coefficient, times)

    best = max((at(c) for c in COEFFICIENTS), key=lambda point: point.speed)
    return _refined(at, best, COEFFICIENTS[0] - COEFFICIENTS[1])


def _refined(at: Callable[[float], CoefficientPoint], best: CoefficientPoint, step: float) -> CoefficientPoint:
    for _ in range(_REFINEMENTS):
        step /= 2
        nearby = [best, *(at(min(1.0, max(0.0, best.coefficient + d))) for d in (-step, step))]
        best = max(nearby, key=lambda point: point.speed)
    return best
