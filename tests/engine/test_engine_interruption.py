"""Ctrl-C may come at any moment; afterwards the same engine works on as if nothing had happened.

It comes to the caller who waits, while the engine's thread is wherever it is; or it is raised there, as by a strategy.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from end_to_end_cases import PROMPTS

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.draft_worker import DraftWorker
from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.engine.rounds import Rounds
from ssd_lab.links import channel
from ssd_lab.links.channel import Channel
from ssd_lab.links.round_memory import RoundMemory
from ssd_lab.links.thread_link import ThreadLink
from ssd_lab.models.loader import LoadedModel, load_model

ASYNC = {"strategy": "async_tree", "k": 3, "f": 2, "progress": False, "threads": 1}
LONG = SamplingParams(max_tokens=400, ignore_eos=True)
SAMPLED = SamplingParams(max_tokens=16, temperature=1.0, seed=5, ignore_eos=True)


@pytest.fixture(scope="module")
def models(tiny_pair: Any) -> tuple[LoadedModel, LoadedModel]:
    torch.set_num_threads(1)
    return load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")


@pytest.fixture(scope="module")
def undisturbed(models: tuple[LoadedModel, LoadedModel]) -> list[list[int]]:
    with LLM(*models, **ASYNC, draft_link="inline") as llm:
        return [output.token_ids for output in llm.generate(PROMPTS[:4], SAMPLED)]


def raise_there() -> None:
    raise KeyboardInterrupt


def press_ctrl_c() -> None:
    """The engine stays where it is until the caller has said that the requests are to end."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    end_s = time.monotonic() + 30
    while MADE[-1]._service._loop.inbox.empty():
        assert time.monotonic() < end_s
        time.sleep(0.001)


MADE: list[LLM] = []  # by the test that runs


def interrupt_once(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    call: int,
    *,
    after: bool = False,
    interrupt: Callable[[], None] = raise_there,
) -> None:
    """Interrupt in this call of a function, before or after it did its work."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def interrupted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            interrupt()
        result = original(*arguments, **named)
        if calls == call and after:
            interrupt()
        return result

    monkeypatch.setattr(owner, name, interrupted)


MOMENTS = {
    "thread: waiting for the first reply": ("thread", ThreadLink, "_receive", 2, False),
    "thread: waiting for a later reply": ("thread", ThreadLink, "_receive", 5, False),
    "thread: after sending": ("thread", ThreadLink, "_send", 6, True),
    "process: waiting for a reply": ("process", RoundMemory, "wait", 4, False),
    "process: before a reply is read": ("process", RoundMemory, "speculation", 3, False),
    "process: after sending": ("process", Channel, "send", 8, True),
    "inline: while the draft drafts": ("inline", DraftWorker, "handle", 7, False),
    "inline: while the draft builds a tree": ("inline", DraftWorker, "background", 3, False),
    "inline: before the proposer is asked": ("inline", LinkProposer, "propose", 3, False),
    "inline: before the first outcome is read": ("inline", Rounds, "collect", 1, False),  # its tree is grown already
    "inline: before a later outcome is read": ("inline", Rounds, "collect", 4, False),
}


@pytest.mark.quick(
    "process: before a reply is read-raise_there",
    "process: waiting for a reply-press_ctrl_c",
    "thread: waiting for the first reply-press_ctrl_c",
    "inline: while the draft builds a tree-raise_there",
    full=[
        "thread: waiting for a later reply-raise_there",
        "inline: while the draft drafts-press_ctrl_c",
        "inline: before the first outcome is read-press_ctrl_c",
        "inline: before a later outcome is read-raise_there",
    ],
)
@pytest.mark.grid(full=4)
@pytest.mark.parametrize("interrupt", [press_ctrl_c, raise_there])
@pytest.mark.parametrize("moment", MOMENTS)
def test_after_ctrl_c_the_next_run_is_as_good_as_new(
    models: Any,
    undisturbed: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    interrupt: Callable[[], None],
):
    link, owner, name, call, after = MOMENTS[moment]
    interrupt_once(monkeypatch, owner, name, call, after=after, interrupt=interrupt)
    with LLM(*models, **ASYNC, draft_link=link, timeout_s=60) as llm:
        MADE[:] = [llm]
        cancelled = llm.generate(PROMPTS[:3], LONG)
        assert {output.finish_reason for output in cancelled} == {"cancelled"}
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
        result = llm.run(PROMPTS[:4], SAMPLED)  # another number of requests: a reply left behind would not fit
        assert [output.token_ids for output in result.outputs] == undisturbed
        assert "degraded" not in result.trace.meta
        assert result.metrics.cache_hit_rate > 0


class Halves:
    """A socket that lets one byte through at a time, with Ctrl-C before every third."""

    def __init__(self, connection: Any) -> None:
        self._socket, self._calls = connection, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _interrupt(self) -> None:
        self._calls += 1
        if self._calls % 3 == 0:
            raise KeyboardInterrupt

    def send(self, data: memoryview) -> int:
        self._interrupt()
        return self._socket.send(data[:1])

    def recv_into(self, view: memoryview) -> int:
        self._interrupt()
        return self._socket.recv_into(view[:1])


def test_an_object_arrives_whole_however_often_its_transfer_is_interrupted():
    import socket

    one, other = socket.socketpair()
    sender, receiver = Channel(Halves(one)), Channel(Halves(other))
    try:
        for number in range(3):
            sent = False
            while not sent:
                try:
                    sender.send(("hello", number)) if not sender._outgoing else sender.flush()
                    sent = True
                except KeyboardInterrupt:
                    continue
            received = None
            while received is None:
                try:
                    received = receiver.receive(5.0)
                except KeyboardInterrupt:
                    continue
            assert received == ("hello", number)
    finally:
        sender.close()
        receiver.close()


def test_waiting_for_a_reply_that_trickles_in_ends_at_the_limit():
    """The limit holds for the whole reply, not for each piece of it."""
    import socket
    import threading

    one, other = socket.socketpair()
    receiver = Channel(other)
    stop, sent = threading.Event(), []

    def trickle() -> None:
        one.sendall(channel._LENGTH.pack(1000))
        while not stop.wait(0.05):
            one.sendall(b"x")
            sent.append(1)

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            receiver.receive(0.4)
        assert len(sent) < 1000, "it waited for the whole reply"
    finally:
        stop.set()
        thread.join()
        one.close()
        receiver.close()
