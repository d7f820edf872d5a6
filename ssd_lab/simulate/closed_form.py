"""Expected speeds by formula (arXiv 2603.03251). Unit of time: one verification, as long as one autoregressive step."""

from __future__ import annotations

import math

from ssd_lab.errors import ConfigError


def expected_tokens(acceptance: float, k: int) -> float:
    """Tokens per round if each of k draft tokens is accepted with probability `acceptance`: sum of its powers 0..k."""
    return sum(acceptance**i for i in range(k + 1))


def speedup_sync(tokens: float, draft_time: float) -> float:
    """Synchronous speculation over autoregressive: `tokens` a round that lasts 1 + draft_time."""
    return tokens / (1 + draft_time)


def speedup_async(
    *, hit_rate: float, tokens_hit: float, tokens_miss: float, draft_time: float, fallback_time: float
) -> float:
    """Asynchronous speculation over autoregressive, batch 1 (arXiv 2603.03251, Theorem 7).

    tokens_hit / tokens_miss: tokens of a round that began with a hit / with the fallback. draft_time, fallback_time:
    the draft's tree and the fallback, over verification time. Raises ConfigError for a rate outside 0..1 or a negative
    time.
    """
    return speedup_async_batch(
        batch=1,
        hit_rate=hit_rate,
        tokens_hit=tokens_hit,
        tokens_miss=tokens_miss,
        draft_time=draft_time,
        fallback_time=fallback_time,
    )


def speedup_async_batch(
    *, batch: int, hit_rate: float, tokens_hit: float, tokens_miss: float, draft_time: float, fallback_time: float
) -> float:
    """The same for a batch, where one miss stalls all sequences (arXiv 2603.03251, Corollary 16); fields as there."""
    if batch < 1 or not 0 <= hit_rate <= 1 or min(draft_time, fallback_time, tokens_hit, tokens_miss) < 0:
        raise ConfigError(
            f"batch {batch} must be at least 1, hit_rate {hit_rate} within 0..1, "
            f"draft_time {draft_time}, fallback_time {fallback_time} and tokens not negative"
        )
    all_hit = hit_rate**batch
    tokens = hit_rate * tokens_hit + (1 - hit_rate) * tokens_miss
    return tokens / (all_hit * max(1.0, draft_time) + (1 - all_hit) * (1 + fallback_time))


def async_over_sync_bound(draft_time: float) -> float:
    """Most that overlapping can gain, every lookup a hit: (1 + T) / max(1, T), at most 2 (follows from Theorem 7)."""
    return (1 + draft_time) / max(1.0, draft_time)


def critical_batch(
    *,
    hit_rate: float,
    tokens_hit: float,
    draft_time: float,
    slow_tokens: float,
    slow_time: float,
    fast_tokens: float,
    fast_time: float,
) -> float:
    """Batch size above which the fast fallback beats the slow, accurate one (from Corollary 16); inf if it never does.

    Both speeds are linear in the share x = hit_rate**batch of rounds without a miss; they cross where the two are
    equal.
    """
    if not 0 < hit_rate < 1:
        raise ConfigError(f"hit_rate is {hit_rate}; it must lie between 0 and 1, else no batch size decides")
    slow = hit_rate * tokens_hit + (1 - hit_rate) * slow_tokens
    fast = hit_rate * tokens_hit + (1 - hit_rate) * fast_tokens
    hit_time = max(1.0, draft_time)
    # slow * (x * hit_time + (1 - x) * (1 + fast_time)) = fast * (x * hit_time + (1 - x) * (1 + slow_time))
    at_no_hits = fast * (1 + slow_time) - slow * (1 + fast_time)
    if at_no_hits <= 0:
        return math.inf
    at_all_hits = (slow - fast) * hit_time
    if at_all_hits <= 0:
        return 0.0
    share = at_no_hits / (at_no_hits + at_all_hits)
    return math.log(share) / math.log(hit_rate)
