"""The outcomes of recorded rounds, as the fits of acceptance and fan-out want them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ssd_lab.errors import ConfigError
from ssd_lab.learning.fan_out_fit import OutcomeSample
from ssd_lab.learning.fan_out_learner import ScheduleLearner
from ssd_lab.trace.records import SequenceRound
from ssd_lab.trace.trace import Trace


def outcome_samples(trace: Trace) -> list[OutcomeSample]:
    """One sample for each sequence and round that had draft tokens. A round without a cache counts as a missed one:
    its tokens too were drafted for the text as it was.
    """
    return [outcome_sample(record) for record in _drafted(trace)]


def outcome_sample(record: SequenceRound) -> OutcomeSample:
    """One record's outcome."""
    return OutcomeSample(
        record.num_accepted, len(record.draft_tokens), record.recovery_rank, began_with_hit=record.cache_hit is True
    )


def looked_up(trace: Trace, k: int) -> Iterator[list[SequenceRound]]:
    """Of each round, the sequences whose outcome was looked up in a cache: of k draft tokens, with a known rank, and
    not a sequence's last (which prepares for nothing).
    """
    last = {record.request_id: record for record in _drafted(trace)}
    for one in trace.rounds:
        found = [
            own
            for own in one.sequences
            if own.draft_tokens
            and own.recovery_rank is not None
            and len(own.draft_tokens) == k
            and own is not last[own.request_id]
        ]
        if found:
            yield found


def replayed_hits(trace: Trace, learner: ScheduleLearner) -> dict[int, list[bool]]:
    """By request, whether each lookup would have been a hit if this schedule had prepared for the recorded rounds,
    learning from them if it does.

    Exact where a hit and the fallback would have drafted the same tokens, as `jit` does; each sequence's first round
    counts as a missed one. What `looked_up` leaves out for the schedule's k is left out here.
    """
    k = len(learner.counts(True)) - 1
    hits: dict[int, list[bool]] = {}
    for record in (own for rows in looked_up(trace, k) for own in rows):
        own = hits.setdefault(record.request_id, [])
        began = bool(own) and own[-1]
        rank = record.recovery_rank
        assert rank is not None  # of a lookup
        own.append(rank < learner.counts(began)[record.num_accepted])
        learner.observe(began, record.num_accepted, rank, k)
    return hits


def replayed_learner(trace: Trace, learner: ScheduleLearner) -> tuple[int, int]:
    """Hits and lookups of `replayed_hits`."""
    hits = [hit for own in replayed_hits(trace, learner).values() for hit in own]
    return sum(hits), len(hits)


def _drafted(trace: Trace) -> Iterator[SequenceRound]:
    return (record for one in trace.rounds for record in one.sequences if record.draft_tokens)


def halves(trace: Trace) -> tuple[Trace, Trace]:
    """Every other request in each: one to learn from, one to be judged by. Raises ConfigError for a single request."""
    ids = sorted({own.request_id for one in trace.rounds for own in one.sequences})
    if len(ids) < 2:
        raise ConfigError("rounds of one request: to learn from one half and judge by the other, record at least two")
    first, second = (_of_requests(trace, set(ids[start::2])) for start in (0, 1))
    return first, second


def _of_requests(trace: Trace, ids: set[int]) -> Trace:
    rounds = [replace(one, sequences=[own for own in one.sequences if own.request_id in ids]) for one in trace.rounds]
    requests = [one for one in trace.requests if one.request_id in ids]
    return replace(trace, requests=requests, rounds=[one for one in rounds if one.sequences], prefills=[])
