"""The figures of a benchmark: their names, units and meaning, and how each is derived from the repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssd_lab.bench.repeat import RepeatResult, RequestResult
from ssd_lab.common.statistics import Estimate, bootstrap_ratio, student_interval

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Figure:
    """How a figure is shown. better: which direction is an improvement (None: neither)."""

    title: str
    unit: str
    meaning: str
    better: Literal["higher", "lower"] | None = None


FIGURES: dict[str, Figure] = {
    "decode_tokens_per_second": Figure(
        "decode tokens/s",
        "tokens/s",
        "tokens generated over the seconds of rounds, whole batch, without rounds of capturing",
        "higher",
    ),
    "total_tokens_per_second": Figure(
        "total tokens/s", "tokens/s", "tokens generated over the whole time, prefill and all but capturing", "higher"
    ),
    "tokens_per_second_per_gpu": Figure(
        "tokens/s per GPU", "tokens/s", "decode tokens/s over the number of GPUs", "higher"
    ),
    "prefill_tokens_per_second": Figure(
        "prefill tokens/s", "tokens/s", "prompt tokens computed over the seconds spent on them", "higher"
    ),
    **{
        f"first_token_s_p{percent}": Figure(
            f"first token p{percent}", "s", "from leaving the queue to the first token, over requests", "lower"
        )
        for percent in PERCENTILES
    },
    **{
        f"latency_s_p{percent}": Figure(
            f"latency p{percent}", "s", "from leaving the queue to the last token, over requests", "lower"
        )
        for percent in PERCENTILES
    },
    **{
        f"token_latency_s_p{percent}": Figure(
            f"time per token p{percent}", "s", "a request's mean time per token after its first", "lower"
        )
        for percent in PERCENTILES
    },
    **{
        f"gap_s_p{percent}": Figure(
            f"between pieces p{percent}", "s", "between two pieces of a streamed answer, over all of them", "lower"
        )
        for percent in PERCENTILES
    },
    "requests_per_second": Figure("requests/s", "requests/s", "answers that came whole over the whole time", "higher"),
    "goodput": Figure(
        "goodput", "requests/s", "answers that came whole and within the limits over the whole time", "higher"
    ),
    "failed_share": Figure("failed", "share", "requests without a whole answer, of all", "lower"),
    "round_s": Figure("round", "s", "mean time of a round of the whole batch; one of more tokens takes longer"),
    "tokens_per_round": Figure(
        "tokens/round", "tokens", "accepted tokens and the recovery token, mean over sequences and rounds", "higher"
    ),
    "acceptance_rate": Figure("acceptance", "share", "accepted over tested draft tokens", "higher"),
    "cache_hit_rate": Figure("hits", "share", "outcomes that the speculation cache held", "higher"),
}


def estimates(repeats: Sequence[RepeatResult], num_gpus: int) -> dict[str, Estimate]:
    """Every figure that these repeats tell, in the order of `FIGURES`.

    Times and speeds: one value a repeat, Student's t over the repeats. Rates: counts added up by request, the bootstrap
    over requests (where no rounds were recorded: the run's totals, without interval).
    """
    found: dict[str, Estimate] = {}
    for name, of_repeat in _times(num_gpus).items():
        values = [value for repeat in repeats if (value := of_repeat(repeat)) is not None]
        if values and len(values) == len(repeats):
            found[name] = student_interval(values)
    for name, estimate in _rates(repeats).items():
        if estimate is not None:
            found[name] = estimate
    return {name: found[name] for name in FIGURES if name in found}


def repeat_values(repeats: Sequence[RepeatResult], name: str, num_gpus: int = 0) -> list[float]:
    """One figure's value in each repeat, those left out that do not tell it."""
    of_repeat = _times(num_gpus)[name]
    return [value for repeat in repeats if (value := of_repeat(repeat)) is not None]


def _times(num_gpus: int) -> dict[str, Callable[[RepeatResult], float | None]]:
    found: dict[str, Callable[[RepeatResult], float | None]] = {
        "decode_tokens_per_second": lambda r: _ratio(r.totals.timed_tokens, r.decode_s),
        "total_tokens_per_second": lambda r: _ratio(r.num_output_tokens, r.unprepared_s),
        "prefill_tokens_per_second": lambda r: _ratio(r.num_prefill_tokens, r.prefill_s),
        "round_s": lambda r: _ratio(r.decode_s, r.totals.timed_rounds),
    }
    if num_gpus:
        found["tokens_per_second_per_gpu"] = lambda r: _ratio(r.totals.timed_tokens, r.decode_s * num_gpus)
    found |= _SERVED
    for percent in PERCENTILES:
        found[f"gap_s_p{percent}"] = _gap_percentile(percent)
    of_request: dict[str, Callable[[RequestResult], float | None]] = {
        "first_token_s": lambda request: request.first_token_s,
        "latency_s": lambda request: request.latency_s,
        "token_latency_s": _token_latency_s,
    }
    for name, value in of_request.items():
        for percent in PERCENTILES:
            found[f"{name}_p{percent}"] = _percentile_of(value, percent)
    return found


def _percentile_of(
    of_request: Callable[[RequestResult], float | None], percent: int
) -> Callable[[RepeatResult], float | None]:
    def of_repeat(repeat: RepeatResult) -> float | None:
        values = [value for request in repeat.requests if (value := of_request(request)) is not None]
        return float(np.percentile(values, percent)) if len(values) >= _fewest(percent) else None

    return of_repeat


def _fewest(percent: int) -> int:
    """Of fewer values than this a percentile is their largest, and says nothing of its own."""
    return 100 // (100 - percent) if percent > 50 else 1


def _gap_percentile(percent: int) -> Callable[[RepeatResult], float | None]:
    def of_repeat(repeat: RepeatResult) -> float | None:
        gaps = [gap for request in repeat.requests for gap in request.gaps_s]
        return float(np.percentile(gaps, percent)) if gaps else None

    return of_repeat


def _requests_per_second(repeat: RepeatResult) -> float | None:
    return _ratio(sum(each.error is None for each in repeat.requests), repeat.wall_s) if repeat.served else None


def _goodput(repeat: RepeatResult) -> float | None:
    judged = [each.in_time for each in repeat.requests if each.in_time is not None]
    return _ratio(sum(judged), repeat.wall_s) if judged else None


def _failed_share(repeat: RepeatResult) -> float | None:
    failed = sum(each.error is not None for each in repeat.requests)
    return _ratio(failed, len(repeat.requests)) if repeat.served else None


_SERVED: dict[str, Callable[[RepeatResult], float | None]] = {
    "requests_per_second": _requests_per_second,
    "goodput": _goodput,
    "failed_share": _failed_share,
}


def _token_latency_s(request: RequestResult) -> float | None:
    if request.latency_s is None or request.first_token_s is None or request.num_output_tokens < 2:
        return None
    return (request.latency_s - request.first_token_s) / (request.num_output_tokens - 1)


def _rates(repeats: Sequence[RepeatResult]) -> dict[str, Estimate | None]:
    requests: dict[str, list[RequestResult]] = {}
    for repeat in repeats:
        for request in repeat.requests:
            requests.setdefault(request.prompt_id, []).append(request)

    def over_requests(over: Callable[[RequestResult], int], under: Callable[[RequestResult], int]) -> Estimate | None:
        return bootstrap_ratio(
            [sum(map(over, group)) for group in requests.values()],
            [sum(map(under, group)) for group in requests.values()],
        )

    if any(request.rounds for group in requests.values() for request in group):
        return {
            "tokens_per_round": over_requests(lambda r: r.accepted + r.rounds, lambda r: r.rounds),
            "acceptance_rate": over_requests(lambda r: r.accepted, lambda r: r.tested),
            "cache_hit_rate": over_requests(lambda r: r.hits, lambda r: r.lookups),
        }
    totals = [repeat.totals for repeat in repeats]
    rounds, tested = sum(t.sequence_rounds for t in totals), sum(t.tested for t in totals)
    accepted, hits = sum(t.accepted for t in totals), sum(t.hits for t in totals)
    return {
        "tokens_per_round": _point(accepted + rounds, rounds),
        "acceptance_rate": _point(accepted, tested),
        "cache_hit_rate": _point(hits, hits + sum(t.misses for t in totals)),
    }


def _point(numerator: int, denominator: int) -> Estimate | None:
    value = _ratio(numerator, denominator)
    return None if value is None else Estimate(value, None, None, 1, "bootstrap")


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
