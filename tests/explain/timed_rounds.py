"""Runs whose every span was made up, so that the term to blame is known."""

from __future__ import annotations

from dataclasses import dataclass

from trace_samples import round_record, sequence_round

from ssd_lab.trace import Activity, RoundRecord, Trace


@dataclass(frozen=True)
class Spans:
    """Seconds of one round's parts. tree: of an asynchronous run, how long the tree took; unfinished when the target
    begins to wait is what verification did not hide.
    """

    verify: float = 1.0
    draft: float = 0.0
    overhead: float = 0.0
    link: float = 0.0


def plain_run(step_s: float, rounds: int = 8) -> Trace:
    """One token a round."""
    made = [_round(i, Spans(step_s), step_s, k=0, accepted=0, origin="none", hit=None) for i in range(rounds)]
    return Trace({"strategy": {"name": "autoregressive"}}, rounds=made)


def sync_run(spans: Spans, *, k: int = 3, accepted: int = 3, rounds: int = 8) -> Trace:
    """Drafting, then verification."""
    length = spans.draft + spans.verify + spans.overhead
    made = [_round(i, spans, length, k=k, accepted=accepted, origin="draft", hit=None) for i in range(rounds)]
    return Trace({"strategy": {"name": "sync_chain", "k": k}}, rounds=made)


def async_run(
    spans: Spans, tree_s: float, hits: list[bool], *, k: int = 3, accepted: int = 3, name: str = "async_tree"
) -> Trace:
    """A round waits for what verification left of the tree, and after a miss for the draft's chain too."""
    made, start = [], 0.0
    for i, hit in enumerate(hits):
        left = max(0.0, tree_s - spans.verify) if i else 0.0
        chain = 0.0 if hit else spans.draft
        wait_end = start + left + chain + spans.link
        verify_end = wait_end + spans.verify
        activities = [
            Activity("link", "wait for draft", start, wait_end),
            Activity("target", "verify", wait_end, verify_end),
            Activity("draft", "tree", start + left - tree_s, start + left),
        ]
        if chain:
            activities.append(Activity("draft", "jit", start + left, start + left + chain))
        record = sequence_round(accepted, k=k, origin="hit" if hit else "jit", cache_hit=hit)
        made.append(round_record(i, start, verify_end + spans.overhead, record, activities=tuple(activities)))
        start = verify_end + spans.overhead
    return Trace({"strategy": {"name": name, "k": k, "f": 1}}, rounds=made)


def _round(
    index: int, spans: Spans, length: float, *, k: int, accepted: int, origin: str, hit: bool | None
) -> RoundRecord:
    start = index * length
    drafted = start + spans.draft
    activities = [Activity("target", "verify", drafted, drafted + spans.verify)]
    if spans.draft:
        activities += [
            Activity("draft", "draft", start, drafted),
            Activity("link", "wait for draft", start, drafted),
        ]
    record = sequence_round(accepted, k=k, origin=origin, cache_hit=hit)
    return round_record(index, start, start + length, record, activities=tuple(activities))
