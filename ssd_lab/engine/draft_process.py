"""Entry point of the draft's child process: `python -m ssd_lab.engine.draft_process FD`."""

from __future__ import annotations

import signal
import socket
import sys

import torch

from ssd_lab.engine.process_link import Channel


def main(descriptor: int) -> None:
    """Build the worker that the first message describes, then serve until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes the socket
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        number, setup = channel.receive()
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        worker = setup.make_worker()
        channel.send((number, None))
        while True:
            number, message = channel.receive()
            reply = worker.handle(message)
            if reply is not None:
                channel.send((number, reply))
                worker.background()
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # the parent decides what a failure means; without this it would see only a dead child
        channel.send((-1, RuntimeError(f"{type(error).__name__}: {error}")))


if __name__ == "__main__":
    main(int(sys.argv[1]))
