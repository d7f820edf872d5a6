"""Asking and answering apart: several drafts work at once, and an answer that nobody waits for any more is dropped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from worker_rounds import asked, round_of

from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.worker_setup import WorkerSetup
from ssd_lab.errors import DraftWorkerError
from ssd_lab.links.link import InlineLink, Link, Pending
from ssd_lab.links.messages import PrefillMessage
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.links.thread_link import ThreadLink
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.rounds.proposal import Proposal

ROUND = round_of(5, 50, None)


def meet(own: Path, other: Path) -> None:
    """Say that this one is at work, and wait until the other is."""
    own.touch()
    deadline_s = time.monotonic() + 60
    while not other.exists():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{other} never worked at the same time")
        time.sleep(0.005)


class Meets:
    """A worker that answers once the other one works too."""

    def __init__(self, own: Path, other: Path) -> None:
        self._own, self._other = own, other

    def handle(self, message: Any) -> Proposal:
        meet(self._own, self._other)
        return Proposal.empty(1)

    def background(self) -> None: ...


class MeetsSetup:
    """What it is made from, for any link."""

    threads = 1
    slots = None

    def __init__(self, own: Path, other: Path) -> None:
        self._files = own, other

    def make_worker(self) -> Meets:
        return Meets(*self._files)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_two_drafts_work_at_once(tmp_path: Path, kind: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    setups = [MeetsSetup(one, two), MeetsSetup(two, one)]
    with ExitStack() as closing:
        links: list[Link] = []
        for setup in setups:
            if kind == "thread":
                links.append(ThreadLink(setup.make_worker, threads=1, start_timeout_s=60))
            else:
                links.append(ProcessLink(setup, start_timeout_s=60))
            closing.callback(links[-1].close)
        pending = [link.ask(ROUND) for link in links]
        answers = [own.answer(60) for own in reversed(pending)]
    assert [answer.origins for answer in answers] == [["none"]] * 2


@pytest.fixture(params=["thread", "process"])
def link(request: pytest.FixtureRequest, tiny_pair: Any) -> Iterator[Link]:
    setup = WorkerSetup(tiny_pair.draft, "float32", "cpu", 20, 8, 4, 1, DraftPlan(k=2), longest_table=4)
    opened: Link
    if request.param == "thread":
        opened = ThreadLink(setup.make_worker, threads=1, start_timeout_s=60)
    else:
        opened = ProcessLink(setup, start_timeout_s=60)
    yield opened
    opened.close()


def test_an_answer_that_was_left_behind_is_not_taken_for_a_later_one(link: Link) -> None:
    other = round_of(5, 60, None)
    expected = [asked(link, message).answer(30).tokens.tolist() for message in (ROUND, other)]
    assert expected[0] != expected[1]
    left = asked(link, ROUND)  # Ctrl-C came between
    link.post(PrefillMessage([PromptPart([1], 3, [1, 2, 3])]))
    link.post(PrefillMessage([PromptPart([40], 3, [1, 2, 3])]))
    assert asked(link, other).answer(30).tokens.tolist() == expected[1]
    with pytest.raises(DraftWorkerError, match="answered already"):
        left.answer(30)


def test_answers_may_be_taken_in_the_order_of_the_asking(link: Link) -> None:
    expected = [asked(link, message).answer(30).tokens.tolist() for message in (ROUND, round_of(5, 60, None))]
    pending: list[Pending] = [asked(link, ROUND), asked(link, round_of(5, 60, None))]
    assert [own.answer(30).tokens.tolist() for own in pending] == expected
    with pytest.raises(DraftWorkerError, match="answered already"):
        pending[-1].answer(30)


def test_what_is_posted_between_asking_and_answering_is_read_after_the_round(link: Link) -> None:
    expected = asked(link, ROUND).answer(30)
    pending = asked(link, ROUND)
    link.post(PrefillMessage([PromptPart([1, 2, 3], 0, [4, 5, 6])]))
    assert torch.equal(pending.answer(30).tokens, expected.tokens)


def test_a_process_that_dies_between_asking_and_answering_is_noticed_at_once(tiny_pair: Any) -> None:
    setup = WorkerSetup(tiny_pair.draft, "float32", "cpu", 20, 8, 4, 1, DraftPlan(k=2), longest_table=4)
    link = ProcessLink(setup, start_timeout_s=60)
    try:
        os.kill(link.process_id, signal.SIGSTOP)  # it cannot have answered
        pending = asked(link, ROUND)
        os.kill(link.process_id, signal.SIGKILL)
        with pytest.raises(DraftWorkerError, match="gone"):
            pending.answer(600)
    finally:
        link.close()


def test_a_draft_that_is_too_slow_is_an_error_where_it_is_waited_for(tmp_path: Path) -> None:
    late, go_on = MeetsSetup(tmp_path / "one", tmp_path / "two"), tmp_path / "two"
    link = ThreadLink(late.make_worker, threads=1, start_timeout_s=60)
    try:
        pending = asked(link, ROUND)
        with pytest.raises(DraftWorkerError, match=r"did not answer within 0\.05 s"):
            pending.answer(0.05)
    finally:
        go_on.touch()
        link.close()


def test_an_inline_draft_that_fails_says_so_when_it_is_asked() -> None:
    class Fails(Meets):
        def handle(self, message: Any) -> Proposal:
            raise ValueError("no such thing")

    with pytest.raises(DraftWorkerError, match="failed: ValueError: no such thing"):
        InlineLink(Fails(Path(), Path())).ask(ROUND)
