"""What a run tells while it goes on, and what its records say about waiting."""

from __future__ import annotations

from typing import Any

from ssd_lab import LLM, SamplingParams


def lone_llm(pair: Any, **fields: Any) -> LLM:
    return LLM(pair.target, strategy="autoregressive", threads=1, progress=False, dtype="float32", **fields)


def test_each_step_is_told_with_the_counts_so_far(tiny_pair: Any):
    seen: list[tuple[int, int]] = []
    with lone_llm(tiny_pair, max_batch=2) as llm:
        result = llm.run(
            [[1, 2, 3], [4, 5, 6]],
            SamplingParams(max_tokens=5, ignore_eos=True),
            on_step=lambda steps, totals: seen.append((steps, totals.emitted)),
        )
    assert seen == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]
    assert [output.finish_reason for output in result.outputs] == ["length", "length"]


def test_a_step_can_end_the_run_and_keeps_what_there_is(tiny_pair: Any):
    with lone_llm(tiny_pair, max_batch=1) as llm:
        result = llm.run(
            [[1, 2, 3], [4, 5, 6]],
            SamplingParams(max_tokens=5, ignore_eos=True),
            on_step=lambda steps, totals: steps < 7,
        )
        assert [len(output.token_ids) for output in result.outputs] == [5, 2]
        assert [output.finish_reason for output in result.outputs] == ["length", "cancelled"]
        again = llm.run([[4, 5, 6]], SamplingParams(max_tokens=5, ignore_eos=True)).outputs[0]
    assert again.token_ids[:2] == result.outputs[1].token_ids


def test_admission_is_recorded_apart_from_arrival(tiny_pair: Any):
    with lone_llm(tiny_pair, max_batch=1) as llm:
        first, second = llm.run([[1, 2, 3], [4, 5, 6]], SamplingParams(max_tokens=4, ignore_eos=True)).trace.requests
    assert first.admitted_s is not None and second.admitted_s is not None
    assert first.arrival_s <= first.admitted_s < first.first_token_s < first.end_s
    assert second.arrival_s < first.end_s <= second.admitted_s  # it waited for the first one's place
