"""A channel moves whole objects both ways, whoever sends, whoever waits, and whenever Ctrl-C comes."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import torch

from ssd_lab.links.channel import Channel

LARGE = 4_000_000  # bytes: more than any socket keeps


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    channels = Channel(one, send_timeout_s=30), Channel(other, send_timeout_s=30)
    yield channels
    for channel in channels:
        channel.close()


def in_a_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_two_sides_that_send_at_once_do_not_wait_for_each_other(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    received = []

    def send_and_receive() -> None:
        other.send(bytes(LARGE))
        received.append(other.receive(30))

    thread = in_a_thread(send_and_receive)
    one.send(bytes(LARGE))
    received.append(one.receive(30))
    thread.join()
    assert [len(data) for data in received] == [LARGE, LARGE]


def test_what_came_while_sending_is_received_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends

    def answer() -> None:
        for number in range(5):
            other.send((number, bytes(LARGE // 8)))
        assert len(other.receive(30)) == LARGE

    thread = in_a_thread(answer)
    one.send(bytes(LARGE))
    received = [one.receive(30)[0] for _ in range(5)]  # the other side may still be sending: it waits for a reader
    thread.join()
    assert received == [0, 1, 2, 3, 4]


def test_what_was_sent_before_the_end_is_received(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    other.send("why it ends")
    other.close()
    with pytest.raises((OSError, EOFError)):
        one.send("anything")
    assert one.receive(5) == "why it ends"
    with pytest.raises((OSError, EOFError)):
        one.receive(5)


def test_nobody_takes_anything_in_for_longer_than_the_limit(ends: tuple[Channel, Channel]) -> None:
    one, _ = ends
    one._send_timeout_s = 0.1
    with pytest.raises(TimeoutError):
        one.send(bytes(LARGE))


def test_a_fast_trickle_does_not_prolong_the_limit(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    other._socket.settimeout(0.05)
    stop = threading.Event()

    def trickle() -> None:
        other._socket.send((10**7).to_bytes(8, "little"))
        while not stop.is_set():
            with suppress(TimeoutError):
                other._socket.send(b"x")

    thread = in_a_thread(trickle)
    try:
        with pytest.raises(TimeoutError):  # else it waits until the test's own limit
            one.receive(0.3)
    finally:
        stop.set()
        thread.join()


TENSORS = {
    "of a matrix": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "transposed": torch.arange(6).reshape(2, 3).T,
    "of truth values": torch.tensor([True, False]),
    "of halves": torch.randn(4, 3).bfloat16(),
    "a number": torch.tensor(3),
    "empty": torch.zeros(0, 4, dtype=torch.int64),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_arrive_as_they_were(ends: tuple[Channel, Channel], name: str) -> None:
    one, other = ends
    sent = TENSORS[name]
    one.send({"probs": sent, "none": None})
    arrived = other.receive(5)["probs"]
    assert arrived.dtype == sent.dtype and arrived.shape == sent.shape and torch.equal(arrived, sent)
    arrived.fill_(1)  # the receiver's to write
    with torch.inference_mode():
        one.send(sent + sent)
    assert torch.equal(other.receive(5), sent + sent)


def test_ctrl_c_at_any_moment_loses_no_byte(ends: tuple[Channel, Channel]) -> None:
    """Real signals at real moments: after each of them the next object still begins where the last one ended."""
    one, other = ends
    stop = threading.Event()

    def echo() -> None:
        while True:
            number, data = other.receive(30)
            if data is None:
                return
            other.send((number, data))

    def disturb() -> None:
        while not stop.wait(0.0004):
            signal.pthread_kill(main, signal.SIGUSR1)

    def interrupt(*_: Any) -> None:
        if armed:
            raise KeyboardInterrupt

    main, armed, interrupted = threading.get_ident(), False, 0
    before = signal.signal(signal.SIGUSR1, interrupt)
    threads = [in_a_thread(echo), in_a_thread(disturb)]
    payload = bytes(range(256)) * 1500
    number = 0
    try:
        end_s = time.monotonic() + 3
        while time.monotonic() < end_s:
            number += 1
            try:
                armed = True
                one.send((number, payload))
                while one.receive(10)[0] != number:  # as a link does: earlier answers were left behind
                    pass
                armed = False
            except KeyboardInterrupt:
                armed = False
                interrupted += 1
    finally:
        stop.set()
        threads[1].join()
        signal.signal(signal.SIGUSR1, before)
        one.send((number + 1, payload))
        while (last := one.receive(10))[0] != number + 1:
            pass
        one.send((0, None))
        threads[0].join()
    assert last[1] == payload
    assert interrupted > 20
