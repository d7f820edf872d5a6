"""A round's two messages in shared memory: what is written is read, what has no room goes beside, flags wake."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from worker_rounds import asked, control_of, round_of

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.worker_setup import WorkerSetup
from ssd_lab.links import shared_memory
from ssd_lab.links.channel import Channel
from ssd_lab.links.messages import PrefillMessage
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.links.shared_memory import SharedMemory, make_memory
from ssd_lab.links.slots import ANSWERED, ASKED, CANCEL, Slots, SlotSizes
from ssd_lab.links.thread_link import ThreadLink
from ssd_lab.models.loader import load_model
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import StateOnDevice
from ssd_lab.strategies.fanout import Explicit

SIZES = SlotSizes(rows=4, tokens=3, vocab=11, rest_bytes=4096)
ROUND = round_of(5, 50, None)


def slots_of(sizes: SlotSizes) -> Slots:
    return Slots(memoryview(bytearray(Slots.bytes_for(sizes))), sizes)


def proposal_of(batch: int = 2, k: int = 3, **fields: Any) -> Proposal:
    values: dict[str, Any] = {
        "tokens": torch.arange(batch * k).view(batch, k),
        "num_drafted": [k] * batch,
        "probs": None,
        "origins": ["hit", "jit"][:batch],
        "cache_hits": [True, None][:batch],
    }
    return Proposal(**{**values, **fields})


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    return one == two


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"probs": torch.rand(2, 3, 11), "token_probs": torch.rand(2, 3), "predicted_hits": [0.25, None]},
        {"probs": torch.rand(2, 5, 11), "raw_probs": torch.rand(2, 3, 11)},  # of a tree: as many as it takes
        {"token_probs": torch.rand(2, 3, dtype=torch.float64), "origins": ["of my own", "hit"]},
        {"k": 0, "token_probs": torch.zeros(2, 0)},
    ],
)
def test_a_speculation_is_read_as_it_was_written(fields: dict[str, Any]) -> None:
    slots, proposal = slots_of(SIZES), proposal_of(**fields)
    assert slots.write_speculation(proposal) is None and not slots.has_beside
    read, _ = slots.read_speculation()
    slots.write_speculation(proposal_of(tokens=torch.full((2, 3), 9)))  # what was read does not change
    for name, value in vars(proposal).items():
        assert same(value, getattr(read, name)), name


@pytest.mark.parametrize(
    "fields", [{"batch": 2, "probs": torch.rand(2, 300, 11)}, {"tokens": torch.ones(2, 2000, dtype=torch.int64)}]
)
def test_what_has_no_room_goes_beside(fields: dict[str, Any]) -> None:
    slots, proposal = slots_of(SIZES), proposal_of(**fields)
    beside = slots.write_speculation(proposal)
    assert beside is not None and slots.has_beside
    read, _ = slots.read_speculation(beside)
    assert all(same(value, getattr(read, name)) for name, value in vars(proposal).items())


def test_an_outcome_is_read_as_it_was_written_and_one_without_room_is_refused() -> None:
    slots = slots_of(SIZES)
    message = round_of(7, 3, 2, round_s=0.5, elsewhere={4: 1}, away={9: (1, 2)}, new_tokens=torch.tensor([[5, 6]]))
    assert slots.write_outcome(message, posted=3) and slots.posted == 3
    read = slots.read_outcome()
    assert same(read.state.tensor, message.state.tensor) and same(read.num_accepted, message.num_accepted)
    assert same(read.new_tokens, message.new_tokens)
    assert (read.control, read.round_s, read.elsewhere, read.away) == (1, 0.5, {4: 1}, {9: (1, 2)})
    assert slots.write_outcome(round_of(7, 3, 2), posted=4) and slots.read_outcome().round_s is None
    assert not slots.write_outcome(round_of(7, 3, 2, elsewhere=dict.fromkeys(range(2000), 1)), posted=5)
    on_device = round_of(7, 3, 2)
    object.__setattr__(on_device, "state", StateOnDevice(torch.zeros(3, 1), 9))
    assert not slots.write_outcome(on_device, posted=5)


@pytest.fixture
def two_sides() -> Iterator[tuple[SharedMemory, SharedMemory, Channel, Channel]]:
    """Both ends of a memory of one page, and of a channel beside it."""
    with ExitStack() as closing:
        memory = make_memory(4096)
        bells, ends = socket.socketpair(), socket.socketpair()
        sides = [
            SharedMemory(descriptor, 4096, bell)
            for descriptor, bell in zip((os.dup(memory), memory), bells, strict=True)
        ]
        channels = [Channel(end) for end in ends]
        for part in (*sides, *channels):
            closing.callback(part.close)
        yield (*sides, *channels)  # type: ignore[misc]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_flag_wakes_who_waits_for_it(two_sides: Any, monkeypatch: Any, ordered: bool) -> None:
    monkeypatch.setattr(shared_memory, "ORDERED", ordered)  # False: on a processor that may reorder stores
    ours, theirs, channel, other = two_sides
    seen: list[int] = []

    def wait() -> None:
        for last in range(3):
            assert theirs.wait(ASKED, last, CANCEL, other, 30)
            seen.append(theirs.words[ASKED])
            theirs.raise_flag(ANSWERED, seen[-1])

    thread = threading.Thread(target=wait)
    thread.start()
    for number in range(1, 4):
        ours.raise_flag(ASKED, number)
        assert ours.wait(ANSWERED, number - 1, CANCEL, channel, 30)
    thread.join(30)
    assert seen == [1, 2, 3]
    other.send("something else")
    assert not ours.wait(ANSWERED, 3, CANCEL, channel, 30)


def test_a_wait_ends_with_its_limit_the_cancel_flag_or_the_other_side(two_sides: Any) -> None:
    ours, theirs, channel, other = two_sides
    with pytest.raises(TimeoutError):
        ours.wait(ANSWERED, 0, CANCEL, channel, 0.0)
    with pytest.raises(TimeoutError):
        ours.wait(ANSWERED, 0, CANCEL, channel, 0.01)
    theirs.raise_flag(CANCEL, 1)
    with pytest.raises(EOFError, match="left"):
        ours.wait(ANSWERED, 0, CANCEL, channel, 30)
    ours.words[CANCEL] = 0
    other.close()
    with pytest.raises(EOFError):
        ours.wait(ANSWERED, 0, CANCEL, channel, 30)


def test_no_segment_has_a_name_and_no_descriptor_is_left(tiny_pair: Any) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    link = opened(tiny_pair)
    held = {
        os.readlink(f"/proc/self/fd/{own}") for own in set(os.listdir("/proc/self/fd")) - set(before) if _is_open(own)
    }
    assert [name for name in held if name.startswith("/") and "(deleted)" in name]  # memory without a name
    assert not [name for name in held if name.startswith("/") and "(deleted)" not in name]
    asked(link, ROUND).answer(30)
    link.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def _is_open(descriptor: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{descriptor}")


def setup_for(tiny_pair: Any, **fields: Any) -> WorkerSetup:
    plan = DraftPlan(k=2, fan_out=Explicit(hit=[2, 1, 1], miss=[1, 1, 2]))
    options: dict[str, Any] = {"target": load_model(tiny_pair.target, dtype="float32").config, **fields}
    return WorkerSetup(tiny_pair.draft, "float32", "cpu", 20, 8, 4, 1, plan, longest_table=4, **options)


def opened(tiny_pair: Any) -> ProcessLink:
    return ProcessLink(setup_for(tiny_pair), start_timeout_s=60)


def test_rounds_take_two_messages_and_control_only_what_changed(tiny_pair: Any) -> None:
    """Batch, temperature and what is recorded do not matter; nor does a round that was left in between."""
    params = SamplingParams(max_tokens=24, ignore_eos=True, temperature=1.0, seed=3)
    options: dict[str, Any] = {"progress": False, "threads": 1, "block_size": 256, "dtype": "float32"}
    with LLM(tiny_pair.target, tiny_pair.draft, "async_tree", k=2, f=2, max_batch=3, **options) as llm:
        rounds: list[tuple[int, int]] = []
        for batch in (1, 3):
            link = llm._engine.proposer.link  # type: ignore[attr-defined]
            before = (link.traffic.all, link.traffic.posted)
            trace = llm.run(["Hello there, you"] * batch, params).trace
            rounds.append((len(trace.rounds), link.traffic.all - before[0] - (link.traffic.posted - before[1])))
        assert link.traffic.beside == 0
        names = {activity.name for one in trace.rounds for activity in one.activities if activity.lane == "link"}
        assert names == {"wait for draft", "outcome", "speculation"}
    assert all(messages == 2 * count for count, messages in rounds)


def test_a_round_that_is_asked_while_another_is_unanswered_goes_beside(tiny_pair: Any) -> None:
    link = opened(tiny_pair)
    try:
        link.post(control_of())
        left = link.ask(ROUND)  # Ctrl-C came between
        second = link.ask(round_of(5, 60, None))
        expected = second.answer(30).tokens
        link.post(PrefillMessage([PromptPart([40], 3, [1, 2, 3])]))
        again = link.ask(round_of(5, 60, None)).answer(30)
        assert torch.equal(again.tokens, expected)
        assert {activity.name for activity in again.activities if activity.lane == "link"} == {"outcome", "speculation"}
        assert left is not second
    finally:
        link.close()


def test_memory_and_queue_carry_the_same(tiny_pair: Any) -> None:
    setup = setup_for(tiny_pair)
    replies = []
    for link in (opened(tiny_pair), ThreadLink(setup.make_worker, threads=1, start_timeout_s=60)):
        link.post(PrefillMessage([PromptPart([10, 20, 30, 40], 0, [1, 2, 3])]))
        got = [asked(link, ROUND, (1.0, 0, 1.0, 0.0, 7)).answer(30)]
        for step in range(3):
            got.append(link.ask(round_of(6 + step, 60 + step, 0)).answer(30))
        link.close()
        replies.append([(r.tokens.tolist(), r.origins, r.cache_hits, r.probs.tolist()) for r in got])
    assert replies[0] == replies[1]
