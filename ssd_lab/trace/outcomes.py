"""The outcomes of recorded rounds, as the fits of acceptance and fan-out want them."""

from __future__ import annotations

from collections.abc import Iterator

from ssd_lab.decoding.fan_out_fit import OutcomeSample
from ssd_lab.decoding.fan_out_learner import ScheduleLearner
from ssd_lab.trace.records import SequenceRound, Trace


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


def replayed_learner(trace: Trace, learner: ScheduleLearner) -> tuple[int, int]:
    """Hits and lookups if this schedule had prepared for the recorded rounds, learning from them if it does.

    Exact where a hit and the fallback would have drafted the same tokens, as `jit` does; each sequence's first round
    counts as a missed one, and its last prepares for nothing. Rounds without a rank, or of another number of draft
    tokens than the schedule's k, are left out.
    """
    k, hits, lookups = len(learner.counts(True)) - 1, 0, 0
    began_with_hit: dict[int, bool] = {}
    last = {record.request_id: record for record in _drafted(trace)}
    for record in _drafted(trace):
        if record.recovery_rank is None or len(record.draft_tokens) != k or record is last[record.request_id]:
            continue
        began = began_with_hit.get(record.request_id, False)
        hit = record.recovery_rank < learner.counts(began)[record.num_accepted]
        learner.observe(began, record.num_accepted, record.recovery_rank, k)
        began_with_hit[record.request_id] = hit
        hits, lookups = hits + hit, lookups + 1
    return hits, lookups


def _drafted(trace: Trace) -> Iterator[SequenceRound]:
    return (record for one in trace.rounds for record in one.sequences if record.draft_tokens)
