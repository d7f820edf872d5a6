"""What the draft's child process does: make the worker, then handle messages until nobody sends any more."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ssd_lab.links.channel import Channel

LOOK_UP_S = 5.0  # between two looks at whether the parent still lives

Result = TypeVar("Result")


def serve(connection: socket.socket, on_start: Callable[[], None]) -> None:
    """Build the worker that the first message describes, say so, and serve. on_start: called when it is built.

    Raises EOFError or OSError when the other side is gone, and whatever the worker raises.
    """
    channel = Channel(connection, send_timeout_s=LOOK_UP_S)
    parent = os.getppid()

    def patiently(work: Callable[[], Result]) -> Result:
        """A parent that died need not have closed the connection: a process that it forked may hold a copy of it."""
        while True:
            try:
                return work()
            except TimeoutError:
                if os.getppid() != parent:
                    raise EOFError("the parent process is gone") from None

    def receive() -> tuple[int, Any]:
        return patiently(lambda: channel.receive(LOOK_UP_S))

    def send(number: int, reply: Any) -> None:
        channel.put((number, reply))
        patiently(channel.flush)

    number, setup = receive()
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    worker = setup.make_worker()
    on_start()
    send(number, None)
    while True:
        number, message = receive()
        reply = worker.handle(message)
        if reply is not None:
            send(number, reply)
            worker.background()
