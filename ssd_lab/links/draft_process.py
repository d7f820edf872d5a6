"""Entry point of the draft's child process: `python -P draft_process.py DESCRIPTORS STDERR SEARCH_PATH`.

It is run by its path, and what it imports before `main` is of the standard library: whatever goes wrong later, a
missing package too, reaches the other side in words.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import struct
import sys
import sysconfig
import traceback

FAILED = -1  # the number of a message that says why this process ends
TELL_S = 10.0  # for how long it tries to say so


def main(descriptors: list[int], stderr: int, search_path: list[str]) -> None:
    """Build the worker that the first message describes, then serve until the other side closes. descriptors: of the
    connection and, where rounds travel through memory, of that and of its bell.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes the socket
    connection, *shared = descriptors
    ends = socket.socket(fileno=connection)
    sys.path[:] = in_order(sys.path, search_path)
    try:
        from ssd_lab.links.draft_serving import serve

        serve(ends, shared, lambda: _return_stderr(stderr))
    except (EOFError, ConnectionError):
        return
    except BaseException as error:  # the parent decides what it means; without this it would see only a dead child
        _tell(ends, error)
        sys.exit(1)


def in_order(own: list[str], parents: list[str]) -> list[str]:
    """The standard library, then where the parent looks: no file there takes the place of a standard module."""
    homes = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    standard = {os.path.join(home, *below) for home in homes for below in ((), ("lib-dynload",))}
    first = [place for place in own if place in standard]
    return list(dict.fromkeys([*first, *parents, *own]))


def _return_stderr(descriptor: int) -> None:
    """While it starts, what it writes there is kept for the parent; from now on it goes where the parent's goes."""
    sys.stderr.flush()
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _tell(ends: socket.socket, error: BaseException) -> None:
    """In the form of `Channel`, which may be what cannot be imported."""
    told = (type(error).__name__, str(error), "".join(traceback.format_exception(error)))
    data = pickle.dumps((FAILED, told))
    ends.settimeout(TELL_S)
    ends.sendall(struct.pack("<Q", len(data)) + data)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
