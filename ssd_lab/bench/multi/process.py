"""A process that runs cells: nothing of one that failed stays on a device, and its end takes all that it started."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.links.channel import Channel
from ssd_lab.links.child_process import ChildProcess

START_S = 120.0  # for a process to import what it needs, on a machine that is busy
LOOK_S = 1.0  # between two looks at whether the parent still lives
END_S = 10.0  # for everything that was killed to be gone

Status = Literal["done", "refused", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What came of a cell: its result, or an error in words. seconds: that it took, a process's start included."""

    status: Status
    seconds: float
    result: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True)
class CellRunnerSetup:
    """What the process is told first."""

    folder: Path
    threads: int | None = None

    def make_worker(self) -> _CellRunner:
        """See `ChildProcess`."""
        return _CellRunner(self.folder)


class _CellRunner:
    def __init__(self, folder: Path) -> None:
        self._kept = Kept(folder)
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()

    def handle(self, cell: Cell) -> Outcome:
        start_s = time.perf_counter()
        try:
            result = cell.run(self._kept)
        except (ConfigError, ModelLoadError) as error:
            return Outcome("refused", time.perf_counter() - start_s, error=_line(error))
        except Exception as error:  # of any kind: one cell must not stop the others
            return Outcome("failed", time.perf_counter() - start_s, error=f"{type(error).__name__}: {_line(error)}")
        return Outcome("done", time.perf_counter() - start_s, result)

    def background(self) -> None: ...


class CellProcess:
    """Runs cells of one group, one after the other. Close it."""

    def __init__(self, group: str, folder: Path) -> None:
        self.group, self.num_cells = group, 0
        self._start_s = time.perf_counter()
        self._child = ChildProcess(threads=None)
        self._channel = Channel(self._child.connection, send_timeout_s=START_S)
        try:
            self._channel.send((0, CellRunnerSetup(folder.resolve())))
        except BaseException:
            self.close()
            raise

    def run(self, cell: Cell, limit_s: float) -> Outcome | None:
        """Run it; None if the time is up. A process in which one failed is not used again."""
        try:
            if not self.num_cells:
                self._channel.receive(min(START_S, limit_s))
                self._child.started()
            start_s = self._start_s if not self.num_cells else time.perf_counter()
            self.num_cells += 1
            self._channel.send((self.num_cells, cell))
            _, outcome = self._channel.receive(max(0.0, limit_s - (time.perf_counter() - start_s)))
        except TimeoutError:
            return None
        except (EOFError, OSError):
            ended = " ".join(self._child.how_it_ended().split())
            return Outcome("failed", time.perf_counter() - self._start_s, error=f"its process ended: {ended}")
        if not isinstance(outcome, Outcome):  # it failed outside a cell
            return Outcome("failed", time.perf_counter() - start_s, error=f"{outcome[0]}: {outcome[1]}")
        return Outcome(outcome.status, time.perf_counter() - start_s, outcome.result, outcome.error)

    def close(self, *, at_once: bool = True) -> None:
        """End it. at_once: with everything that it started, whatever they are about; else it ends by itself first."""
        started = descendants(self._child.pid) if at_once else []
        if at_once:
            _kill([self._child.pid, *started])
        self._channel.close()
        self._child.end()
        end_s = time.monotonic() + END_S
        while any(map(is_there, started)) and time.monotonic() < end_s:
            time.sleep(0.02)


def descendants(process_id: int) -> list[int]:
    """Processes that this one started, and those that they started; none where the system does not tell."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process_id}/task").iterdir():
            for child in (task / "children").read_text(encoding="utf-8").split():
                found += [int(child), *descendants(int(child))]
    return found


def _end_with(parent: int) -> None:
    """End this process and all that it started once its parent is gone: nobody wants the cell any more."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    _kill([*descendants(os.getpid()), os.getpid()])


def _kill(process_ids: list[int]) -> None:
    for process_id in process_ids:
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def is_there(process_id: int) -> bool:
    """Has it not ended? One that nobody has asked how it ended is none."""
    with suppress(OSError):
        return ") Z " not in Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8")
    return False


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
