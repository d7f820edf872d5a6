"""Forks the child processes that tests ask for: `python -P forking_server.py DESCRIPTOR`, of a connection to pytest.

What they need is imported once, at the first request, and the bundled draft's products are probed. Each gets the
descriptors, the environment and the arguments that a fresh interpreter would, and the one who asked is told its id and,
when it has ended, how.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

IMPORTS = ("torch", "ssd_lab.links.draft_serving", "ssd_lab.drafting.worker_setup", "ssd_lab.ranks.rank_worker")
LONGEST, MOST = 1 << 17, 16  # of a request, in bytes and in descriptors


def main(connection: socket.socket) -> None:
    """Serve until pytest has ended."""
    bell, ring = socket.socketpair()
    for end in (bell, ring):
        end.setblocking(False)
    signal.set_wakeup_fd(ring.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    telling: dict[int, int] = {}  # by process id, where its end is told
    while True:
        readable, _, _ = select.select([connection, bell], [], [])
        if bell in readable:
            bell.recv(4096)
            _reap(telling)
        if connection in readable:
            data, descriptors, _, _ = socket.recv_fds(connection, LONGEST, MOST)
            if not data:
                return
            _import_all()
            tell, *others = descriptors
            if not (process := os.fork()):
                _become_child(json.loads(data), others)
            telling[process] = tell
            for descriptor in others:
                os.close(descriptor)
            _write(tell, process)


def _reap(telling: dict[int, int]) -> None:
    while telling:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        tell = telling.pop(process)
        _write(tell, os.waitstatus_to_exitcode(status))
        os.close(tell)


def _write(tell: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(tell, number.to_bytes(8, "little", signed=True))


def _import_all() -> None:
    if "torch" not in sys.modules:
        for name in IMPORTS:
            importlib.import_module(name)
        sys.modules["torch"].set_num_threads(1)  # none may be there when it forks
        loader, demo = (importlib.import_module(f"ssd_lab.{name}") for name in ("models.loader", "demo"))
        loader.load_model(demo.DRAFT, dtype="float32")  # its products are probed: children need not
        gc.collect()
        gc.freeze()


def _become_child(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        _put_in_place(descriptors, request["places"])
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = request["arguments"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _put_in_place(descriptors: list[int], places: list[int]) -> None:
    """Nothing else is open afterwards but an empty standard input."""
    above = max(places) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in descriptors]
    os.closerange(3, above)
    for place, descriptor in zip(places, moved, strict=True):
        os.dup2(descriptor, place)
    os.closerange(above, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
