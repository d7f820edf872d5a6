"""One draft over several processes: the same tokens, and a run that outlives its loss."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from end_to_end_cases import PROMPTS

from ssd_lab import LLM, SamplingParams
from ssd_lab.errors import ConfigError

pytestmark = pytest.mark.grid(full=5)  # each case starts processes of its own

OPTIONS: dict[str, Any] = {"progress": False, "threads": 1, "dtype": "float32"}
PARAMS = SamplingParams(max_tokens=24, ignore_eos=True)
SHARED = {"target": ["cpu"], "draft": ["cpu", "cpu"], "draft_parallel": "tensor"}
ASYNC: dict[str, Any] = {"strategy": "async_tree", "k": 3, "f": 2}


def descendants(process: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{process}/task").glob("*"):
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            children += [int(child) for child in (task / "children").read_text(encoding="utf-8").split()]
    return children + [below for child in children for below in descendants(child)]


@pytest.fixture(scope="module")
def expected(tiny_pair: Any) -> list[list[int]]:
    with LLM(tiny_pair.target, strategy="autoregressive", **OPTIONS) as llm:
        return [output.token_ids for output in llm.generate(PROMPTS, PARAMS)]


@pytest.mark.full
def test_a_shared_draft_writes_the_autoregressive_text_and_outlives_its_rank(
    tiny_pair: Any, expected: list[list[int]]
) -> None:
    before = set(descendants(os.getpid()))
    with LLM(tiny_pair.target, tiny_pair.draft, **ASYNC, **OPTIONS, placement=SHARED) as llm:
        result = llm.run(PROMPTS, PARAMS)
        assert [output.token_ids for output in result.outputs] == expected
        assert result.metrics.tokens_per_round > 1.3 and result.metrics.cache_hit_rate > 0
        draft, rank = sorted(set(descendants(os.getpid())) - before)
        os.kill(rank, signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match=rf"rank 1 of the draft \(process {rank}, cpu\) is gone"):
            outputs = llm.generate(PROMPTS, PARAMS)
        assert [output.token_ids for output in outputs] == expected
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s and set(descendants(os.getpid())) - before:
        time.sleep(0.05)
    assert set(descendants(os.getpid())) <= before and draft


@pytest.mark.full
@pytest.mark.parametrize("strategy", ["sync_chain", "sync_tree"])
@pytest.mark.parametrize("target", [1, 2])
def test_every_way_of_drafting_with_it(strategy: str, target: int) -> None:
    placement = {**SHARED, "target": ["cpu"] * target}
    with LLM(strategy="autoregressive", **OPTIONS, placement={"target": ["cpu"] * target}) as llm:
        texts = [output.token_ids for output in llm.generate(PROMPTS, PARAMS)]
    with LLM(strategy=strategy, **OPTIONS, placement=placement) as llm:
        result = llm.run(PROMPTS, PARAMS)
    assert [output.token_ids for output in result.outputs] == texts
    assert result.metrics.tokens_per_round > 1.3


@pytest.mark.full
def test_sampled_text_does_not_depend_on_how_the_draft_is_placed() -> None:
    """Its sums are made in another order, so a text may part where a coin falls on an edge; in float32 that is rare."""
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=5, ignore_eos=True)
    texts = []
    for placement in ({"target": ["cpu"], "draft": ["cpu"]}, SHARED):
        with LLM(**ASYNC, **OPTIONS, placement=placement) as llm:
            texts.append([output.token_ids for output in llm.generate(PROMPTS, params)])
    assert sum(ours == theirs for ours, theirs in zip(*texts, strict=True)) >= len(PROMPTS) - 2


def test_a_draft_that_cannot_be_shared_is_refused_with_the_numbers_that_are_allowed() -> None:
    placement = {"target": ["cpu"], "draft": ["cpu"] * 3, "draft_parallel": "tensor"}
    with pytest.raises(ConfigError, match=r"the draft .* cannot be shared by 3 devices: .* 4 heads, .* 1, 2, 4 div"):
        LLM(**ASYNC, **OPTIONS, placement=placement)
