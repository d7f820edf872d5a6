"""A process that another process of this run starts, and the memory that two hosts do not share."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from worker_rounds import WARM, asked, control_of, round_of

from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.worker_setup import WorkerSetup
from ssd_lab.errors import DraftWorkerError
from ssd_lab.hosts.launcher import Launcher, LauncherServer
from ssd_lab.links.channel import Channel
from ssd_lab.links.link import InlineLink
from ssd_lab.links.mirrored_memory import MirroredMemory
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.links.slots import ANSWERED, ASKED, CANCEL, Slots, SlotSizes
from ssd_lab.models.loader import load_model
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.strategies.components.fan_out import Explicit

SIZES = SlotSizes(rows=4, tokens=3, vocab=11, rest_bytes=4096)


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    """Of a server in a thread of this process."""
    with LauncherServer("127.0.0.1") as server, server.at_work(1) as found:
        yield found


def setup_for(tiny_pair: Any) -> WorkerSetup:
    plan = DraftPlan(k=2, fan_out=Explicit(hit=[2, 1, 1], miss=[1, 1, 2]))
    target = load_model(tiny_pair.target, dtype="float32").config
    return WorkerSetup(tiny_pair.draft, "float32", "cpu", 20, 8, 4, 1, plan, longest_table=4, target=target)


def test_a_draft_of_another_process_answers_as_one_here_and_its_end_is_told(launcher: Launcher, tiny_pair: Any) -> None:
    setup, replies = setup_for(tiny_pair), []
    link = ProcessLink(setup, start_timeout_s=60, starter=launcher)
    for each in (link, InlineLink(setup.make_worker())):
        each.post(control_of(WARM))
        rounds = [asked(each, round_of(5, 50, None), WARM).answer(30)]
        each.work_ahead()
        for step in range(3):
            rounds.append(each.ask(round_of(6 + step, 60 + step, 0)).answer(30))
            each.work_ahead()
        assert all(reply.probs is not None for reply in rounds)
        replies.append([(r.tokens.tolist(), r.origins, r.cache_hits, r.probs.tolist()) for r in rounds])  # type: ignore[union-attr]
    assert replies[0] == replies[1]
    assert (link.traffic.asked, link.traffic.answered, link.traffic.beside) == (4, 5, 0)  # the fifth: it has started
    spans = {activity.name for activity in link.ask(round_of(9, 70, 0)).answer(30).activities}
    assert {"outcome", "speculation"} <= spans
    os.kill(link.process_id, signal.SIGKILL)
    with pytest.raises(DraftWorkerError, match=r"is gone \(killed by SIGKILL"):
        link.ask(round_of(10, 71, 0)).answer(30)
    link.close()
    with pytest.raises(OSError, match=f"KeyError: {link.process_id}"):  # it is no child any more
        launcher.ask("look", pid=link.process_id)


def test_it_listens_to_whoever_knows_its_token(launcher: Launcher) -> None:
    with pytest.raises(OSError, match="closed the connection"):
        Launcher(1, launcher.address, launcher.port, "another").ask("time")
    with socket.create_connection((launcher.address, launcher.port), 10) as connection:
        connection.sendall(b"no line of JSON\n")
        assert connection.recv(1) == b""
    with pytest.raises(OSError, match="KeyError: 17"):
        launcher.ask("look", pid=17)
    assert json.dumps(launcher.ask("time"))


@pytest.fixture
def two_sides() -> Iterator[tuple[MirroredMemory, MirroredMemory, Channel, Channel]]:
    """Both copies of a memory, and the channel between them."""
    channels = [Channel(end) for end in socket.socketpair()]
    memories = [MirroredMemory(Slots.bytes_for(SIZES), channel) for channel in channels]
    yield (*memories, *channels)  # type: ignore[misc]
    for part in (*memories, *channels):
        part.close()


@pytest.mark.parametrize("batch", [1, 4])
def test_what_stands_under_a_flag_arrives_with_it_in_pieces_of_one_length(two_sides: Any, batch: int) -> None:
    ours, theirs, channel, other = two_sides
    slots, their_slots = Slots(ours.bytes, SIZES), Slots(theirs.bytes, SIZES)
    lengths: list[int] = []
    put = Channel.put_piece

    def counted(self: Channel, parts: Any) -> None:
        parts = list(parts)
        lengths.append(sum(map(len, parts)))
        put(self, parts)

    message = round_of(7, 3, 2, round_s=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Channel, "put_piece", counted)
        for number in range(1, 3):
            assert slots.write_outcome(message, posted=3)
            ours.raise_flag(ASKED, number, slots.spans(ASKED))
            assert theirs.wait(ASKED, number - 1, CANCEL, other, 30)
            read = their_slots.read_outcome()
            assert torch.equal(read.state.tensor, message.state.tensor) and read.round_s == 0.5
            proposal = Proposal(
                torch.full((batch, 3), number), [3] * batch, None, origins=["hit"] * batch, cache_hits=[True] * batch
            )
            assert their_slots.write_speculation(proposal) is None
            theirs.raise_flag(ANSWERED, number, their_slots.spans(ANSWERED))
            assert ours.wait(ANSWERED, number - 1, CANCEL, channel, 30)
            assert torch.equal(slots.read_speculation()[0].tokens, proposal.tokens)
    assert lengths == [lengths[0], lengths[1]] * 2
    assert lengths[:2] == [ONE_OUTCOME, ONE_SPECULATION]


SPAN, HEAD = 16, 8  # bytes: where a part begins and ends; how many parts
ONE_OUTCOME = HEAD + 4 * SPAN + 8 + 8 * 16 + 8 * 4 * 4
ONE_SPECULATION = HEAD + 5 * SPAN + 8 + 8 * 24 + 4 * (3 * 8 + 8 + 3 * 8 + 3 * 4)


def test_a_wait_ends_with_what_comes_else_with_its_limit_or_with_the_other_side(two_sides: Any) -> None:
    ours, theirs, channel, other = two_sides
    for limit_s in (0.0, 0.01):
        with pytest.raises(TimeoutError):
            ours.wait(ANSWERED, 0, CANCEL, channel, limit_s)
    theirs.raise_flag(ANSWERED, 1, [(512, 520)])
    other.send("something else")
    assert ours.wait(ANSWERED, 0, CANCEL, channel, 0.0)
    assert not ours.wait(ANSWERED, 1, CANCEL, channel, 30) and channel.receive(1) == "something else"
    theirs.raise_flag(ANSWERED, 2, [(512, 520)])  # nobody waits for it any more
    other.send("the last")
    assert channel.receive(1) == "the last"
    ours.raise_flag(CANCEL, 1)
    with pytest.raises(EOFError, match="left"):
        ours.wait(ANSWERED, 1, CANCEL, channel, 30)
    other.close()
    ours.words[CANCEL] = 0
    with pytest.raises(EOFError):
        ours.wait(ANSWERED, 1, CANCEL, channel, 30)
