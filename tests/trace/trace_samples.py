"""Traces small enough to check by hand."""

from __future__ import annotations

from typing import Any

from ssd_lab.trace import Activity, RequestRecord, RoundRecord, SequenceRound, Trace, TreeRecord


def sequence_round(
    num_accepted: int = 0,
    *,
    k: int = 3,
    request_id: int = 0,
    position: int = 4,
    num_emitted: int | None = None,
    origin: str = "draft",
    cache_hit: bool | None = None,
    tree: TreeRecord | None = None,
) -> SequenceRound:
    """One sequence's round with k draft tokens 10, 11, ... and recovery token 99."""
    return SequenceRound(
        request_id=request_id,
        position=position,
        draft_tokens=list(range(10, 10 + k)),
        draft_probs=[0.5] * k,
        target_probs=[0.25] * k,
        num_accepted=num_accepted,
        recovery_token=99,
        recovery_prob=0.75,
        num_emitted=num_accepted + 1 if num_emitted is None else num_emitted,
        origin=origin,
        cache_hit=cache_hit,
        tree=tree,
    )


def round_record(
    index: int, start_s: float, end_s: float, *sequences: SequenceRound, activities: tuple[Activity, ...] = ()
) -> RoundRecord:
    """One round of the batch."""
    return RoundRecord(index, start_s, end_s, list(sequences), list(activities))


def request(num_tokens: int, *, request_id: int = 0, **times: Any) -> RequestRecord:
    """A finished request with `num_tokens` output tokens."""
    fields = {"arrival_s": 0.0, "first_token_s": 1.0, "end_s": 3.0, **times}
    return RequestRecord(request_id, "Hi", [1, 2, 3, 4], list(range(num_tokens)), "text", "length", **fields)


def async_trace() -> Trace:
    """Two sequences, three rounds, k = 3: accepted (3, 1), (0, 2), (1, stop after 1)."""
    rounds = [
        round_record(
            0,
            1.0,
            2.0,
            sequence_round(3, request_id=0, origin="jit"),
            sequence_round(1, request_id=1, origin="jit"),
            activities=(
                Activity("target", "verify", 1.0, 1.75),
                Activity("target", "wait for draft", 1.75, 2.0),
                Activity("draft", "tree", 1.25, 2.25),
            ),
        ),
        round_record(
            1,
            2.0,
            3.0,
            sequence_round(0, request_id=0, origin="hit", cache_hit=True),
            sequence_round(2, request_id=1, origin="jit", cache_hit=False),
            activities=(Activity("target", "verify", 2.0, 3.0), Activity("draft", "wait for outcome", 2.5, 3.0)),
        ),
        round_record(
            2,
            3.5,
            5.5,
            sequence_round(1, request_id=0, origin="hit", cache_hit=True),
            sequence_round(2, request_id=1, origin="hit", cache_hit=True, num_emitted=1),
            activities=(Activity("target", "verify", 3.5, 5.5),),
        ),
    ]
    return Trace(
        meta={"strategy": {"name": "async_tree", "k": 3}, "exact": True, "device": "cpu", "dtype": "float32"},
        requests=[
            request(7, request_id=0, first_token_s=2.0, end_s=5.5),
            request(6, request_id=1, arrival_s=0.5, first_token_s=2.0, end_s=5.5),
        ],
        rounds=rounds,
        prefills=[Activity("target", "prefill", 0.0, 1.0)],
    )
