"""Several drafts share a batch's rows: the text is that of one draft, whatever the strategy, whoever comes or goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end_cases import PROMPTS, STRATEGIES

from ssd_lab import LLM, SamplingParams
from ssd_lab.display.timeline import timeline_svg
from ssd_lab.drafting.composition import joined, no_draft
from ssd_lab.drafting.request_shares import RequestShares
from ssd_lab.drafting.several_drafts import SeveralDrafts
from ssd_lab.errors import ConfigError
from ssd_lab.explain import explain
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.simulate import PUBLISHED_70B, simulate

pytestmark = pytest.mark.grid(full=5)  # each case starts processes of its own

TWO = {"target": ["cpu"], "draft": ["cpu", "cpu"]}
OPTIONS: dict[str, Any] = {"progress": False, "threads": 1, "max_batch": 4, "dtype": "float32", "timeout_s": 60}
GREEDY = [SamplingParams(max_tokens=tokens, ignore_eos=True) for tokens in (16, 5, 20, 9, 13, 7)]
WARM = [own.model_copy(update={"temperature": 1.0, "seed": place}) for place, own in enumerate(GREEDY)]
LEARNT = ("async fast", "async by confidence", "async geometric, auto", "async n-gram", "async dynamic", "sync dynamic")


def prompts() -> list[str]:
    return [PROMPTS[place % len(PROMPTS)] for place in range(len(GREEDY))]


def texts_of(llm: LLM, params: list[SamplingParams]) -> list[list[int]]:
    return [output.token_ids for output in llm.generate(prompts(), params)]


def drafts_of(llm: LLM) -> SeveralDrafts:
    proposer = llm._engine.proposer
    assert isinstance(proposer, SeveralDrafts)
    return proposer


@pytest.fixture(scope="module")
def expected(tiny_pair: Any) -> list[list[int]]:
    with LLM(tiny_pair.target, None, "autoregressive", **OPTIONS) as llm:
        return texts_of(llm, GREEDY)


@pytest.fixture(scope="module")
def two(tiny_pair: Any) -> Iterator[LLM]:
    with LLM(tiny_pair.target, tiny_pair.draft, "async_tree", k=3, f=2, placement=TWO, **OPTIONS) as llm:
        yield llm


def test_two_drafts_give_the_text_of_one(tiny_pair: Any, two: LLM, expected: list[list[int]]) -> None:
    assert texts_of(two, GREEDY) == expected
    with LLM(tiny_pair.target, tiny_pair.draft, "async_tree", k=3, f=2, draft_link="inline", **OPTIONS) as one:
        assert texts_of(two, WARM) == texts_of(one, WARM)


def test_each_draft_has_a_lane_and_every_reader_of_traces_knows_it(two: LLM) -> None:
    run = two.run(prompts(), GREEDY)
    lanes = {activity.lane for record in run.trace.rounds for activity in record.activities}
    assert {"target", "draft 0", "draft 1", "link 0", "link 1"} == lanes
    for record in run.trace.rounds:
        for activity in record.activities:
            assert activity.start_s <= activity.end_s <= run.trace.rounds[-1].end_s + 1  # one clock
    assert run.metrics.lanes["draft 0"].busy > 0 and run.metrics.lanes["draft 1"].busy > 0
    assert {sequence.request_id for record in run.trace.rounds for sequence in record.sequences if sequence.tree}
    assert len(simulate(run.trace, PUBLISHED_70B).rounds) > 0
    assert "draft" in str(explain(run.trace)).lower()
    assert "draft 1" in timeline_svg({"two drafts": run.trace})


def test_requests_stay_with_their_draft_and_are_shared_evenly(two: LLM) -> None:
    before = [draft.link.traffic.asked for draft in drafts_of(two).drafts]  # type: ignore[attr-defined]
    rounds = len(two.run(prompts()[:4], [GREEDY[0]] * 4).trace.rounds)
    asked = [d.link.traffic.asked - b for d, b in zip(drafts_of(two).drafts, before, strict=True)]  # type: ignore[attr-defined]
    assert all(rounds * 0.4 <= own <= rounds for own in asked)


@pytest.mark.full
@pytest.mark.grid(most=4)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "autoregressive"])
def test_every_strategy_gives_the_same_text_with_two_drafts(tiny_pair: Any, expected: Any, name: str) -> None:
    fields = STRATEGIES[name]
    with LLM(tiny_pair.target, tiny_pair.draft, placement=TWO, **fields, **OPTIONS) as llm:
        assert texts_of(llm, GREEDY) == expected
        warm = texts_of(llm, WARM)
    if name not in LEARNT:  # what was drafted there depends on who else was
        with LLM(tiny_pair.target, tiny_pair.draft, **fields, **OPTIONS) as one:
            assert texts_of(one, WARM) == warm


@pytest.mark.full
def test_preempted_and_shared_texts_are_shown_to_the_draft_that_needs_them(tiny_pair: Any) -> None:
    """Blocks that one draft filled say nothing to another: acceptance with two drafts is that with one."""
    texts = ["Hello there, you two. " * 3 + own for own in ("Who?", "What now?", "Why is that so?", "When?")]
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    options = {**OPTIONS, "block_size": 8, "num_blocks": 44}
    found = []
    for where in (TWO, {"target": ["cpu"], "draft": ["cpu"]}):
        with LLM(tiny_pair.target, tiny_pair.draft, "sync_chain", k=3, placement=where, **options) as llm:
            run = llm.run(texts + texts, params)
            found.append(([o.token_ids for o in run.outputs], run.metrics.tokens_per_round))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=0.02)


# --- one is lost ------------------------------------------------------------------------------------------------------


def test_the_other_draft_takes_over_and_the_lost_one_comes_back(tiny_pair: Any, expected: list[list[int]]) -> None:
    with LLM(
        tiny_pair.target, tiny_pair.draft, "async_tree", k=3, f=2, placement=TWO, restart_draft=1, **OPTIONS
    ) as llm:
        several = drafts_of(llm)
        lost = several.drafts[1].link.process_id  # type: ignore[attr-defined]
        os.kill(lost, signal.SIGKILL)
        with pytest.warns(RuntimeWarning, match=r"draft 1 was lost: .*SIGKILL.*take over.*started again"):
            run = llm.run(prompts(), GREEDY)
        assert [output.token_ids for output in run.outputs] == expected
        assert "draft 1 was lost" in run.trace.meta["drafts"][0] and "draft 1 was lost" in str(run)
        assert not Path(f"/proc/{lost}").exists() and "degraded" not in run.trace.meta
        deadline_s = time.monotonic() + 60
        while len(several.drafts) < 2 and time.monotonic() < deadline_s:
            assert texts_of(llm, GREEDY) == expected
        again = [draft.link for draft in several.drafts]
        assert len(again) == 2
        before = again[1].traffic.asked  # type: ignore[attr-defined]
        assert texts_of(llm, GREEDY) == expected
        assert again[1].traffic.asked > before  # type: ignore[attr-defined]
        for link in again:
            os.kill(link.process_id, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.warns(RuntimeWarning, match=r"lost|without a draft"):
            assert texts_of(llm, GREEDY) == expected


# --- one is slow ------------------------------------------------------------------------------------------------------


def origins_of(llm: LLM, expected: list[list[int]]) -> set[str]:
    run = llm.run(prompts(), GREEDY)
    assert [output.token_ids for output in run.outputs] == expected
    return {sequence.origin for record in run.trace.rounds for sequence in record.sequences}


@pytest.mark.quick("1")
@pytest.mark.parametrize("count", [1, 2])
def test_a_draft_that_is_slow_holds_no_round_up_for_longer_than_it_may(
    tiny_pair: Any, expected: list[list[int]], count: int
) -> None:
    """It is stopped, and answers when it goes on: nobody waits for that answer any more."""
    where = {"target": ["cpu"], "draft": ["cpu"] * count}
    options = {**OPTIONS, "placement": where, "draft_wait_s": 1.0}
    with LLM(tiny_pair.target, tiny_pair.draft, "async_tree", k=3, f=2, **options) as llm:
        proposer: Any = llm._engine.proposer
        slow = (proposer.drafts[0] if count == 2 else proposer).link.process_id
        os.kill(slow, signal.SIGSTOP)
        try:
            found = origins_of(llm, expected)
            assert found == {"none"} if count == 1 else {"none"} < found
        finally:
            os.kill(slow, signal.SIGCONT)
        deadline_s = time.monotonic() + 60
        while "hit" not in (found := origins_of(llm, expected)) or (count == 2 and "none" in found):
            assert time.monotonic() < deadline_s


SLEEPS = """
import os, sys, time, warnings
from ssd_lab import LLM
with LLM({target!r}, {draft!r}, "async_tree", k=2, f=1, placement={where!r}, threads=1, progress=False) as llm:
    print(*[draft.link.process_id for draft in llm._engine.proposer.drafts], flush=True)
    time.sleep(60)
"""


@pytest.mark.full
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_drafts_end_with_the_program_whatever_ends_it(tiny_pair: Any, name: str) -> None:
    script = SLEEPS.format(target=tiny_pair.target, draft=tiny_pair.draft, where=TWO)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        drafts = [*map(int, program.stdout.readline().split())]
        assert len(set(drafts)) == 2
        program.send_signal(getattr(signal, name))
        program.wait(60)
    deadline_s = time.monotonic() + 30
    while any(Path(f"/proc/{own}/stat").exists() for own in drafts) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not [
        own for own in drafts if Path(f"/proc/{own}/cmdline").exists() and Path(f"/proc/{own}/cmdline").read_bytes()
    ]


# --- the parts --------------------------------------------------------------------------------------------------------


def test_requests_go_to_whoever_has_fewest() -> None:
    shares = RequestShares()
    assert [shares.give(own, [0, 1, 2]) for own in range(5)] == [0, 1, 2, 0, 1]
    shares.forget(2)
    assert shares.give(7, [0, 1, 2]) == 2 and shares.of(7) == 2
    assert shares.overloaded([0, 1, 2]) is None
    shares.forget(7)
    assert shares.overloaded([0, 1, 2]) == 0
    shares.release(0)
    assert shares.of(0) is None and shares.of(1) == 1 and shares.of(3) is None
    assert shares.give(3, [2]) == 2


def test_proposals_are_joined_in_the_rows_order() -> None:
    def part(tokens: list[list[int]], origin: str) -> Proposal:
        count = len(tokens)
        drafted = torch.tensor(tokens)
        probs = torch.rand(count, drafted.shape[1], 9)
        return Proposal(drafted, [drafted.shape[1]] * count, probs, [origin] * count, [None] * count, probs[..., 0])

    one, two = part([[1, 2], [3, 4]], "hit"), part([[5, 6, 7]], "jit")
    whole = joined([([0, 3], one), ([2], two), ([1], no_draft(1))], 4)
    assert whole.tokens.tolist() == [[1, 2, 0], [0, 0, 0], [5, 6, 7], [3, 4, 0]]
    assert whole.num_drafted == [2, 0, 3, 2] and whole.origins == ["hit", "none", "jit", "hit"]
    assert whole.probs is not None and one.probs is not None and two.probs is not None
    assert torch.equal(whole.probs[3, :2], one.probs[1]) and torch.equal(whole.probs[2], two.probs[0])
    assert whole.problem(4, 3, 9) is None
    assert joined([([0, 1], one)], 2) is one


def test_several_drafts_are_processes(tiny_pair: Any) -> None:
    with pytest.raises(ConfigError, match=r"names 2 drafts, each a process.*draft_link='thread'"):
        LLM(tiny_pair.target, tiny_pair.draft, "async_tree", placement=TWO, draft_link="thread", **OPTIONS)
