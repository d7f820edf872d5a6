"""Run the cells that a report lacks, for so many minutes: what is done is kept, and the next call goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ssd_lab.bench.multi.cell import Cell
from ssd_lab.bench.multi.process import CellProcess, Outcome
from ssd_lab.bench.multi.store import Store

LIMIT_FACTOR, LEAST_LIMIT_S, MOST_LIMIT_S = 5.0, 120.0, 540.0  # of a cell, over what it is thought to take
OnCell = Callable[[Cell, Outcome], None]


@dataclass(frozen=True)
class Ran:
    """What a call did. left: cells that the next call goes on with. failed: of this call."""

    done: int
    failed: int
    left: int


def expected_s(cell: Cell, cells: Sequence[Cell], store: Store) -> float:
    """Seconds that a cell is thought to take: as those of its piece took, over what was thought of them."""
    known = [(one.estimate_s, store.results.get(one.key)) for one in cells if one.piece == cell.piece]
    done = [(thought, line["seconds"]) for thought, line in known if line is not None and line["status"] == "done"]
    factor = sum(took for _, took in done) / sum(thought for thought, _ in done) if done else 1.0
    return cell.estimate_s * factor


def missing(cells: Sequence[Cell], store: Store, *, retry: bool = False) -> list[Cell]:
    """The cells that have no result. retry: those that failed count as such, too."""
    known = {key for key, line in store.results.items() if not (retry and line["status"] == "failed")}
    return [cell for cell in cells if cell.key not in known]


def run_cells(
    cells: Sequence[Cell],
    store: Store,
    *,
    minutes: float,
    retry: bool = False,
    on_start: Callable[[Cell], None] = lambda cell: None,
    on_cell: OnCell = lambda cell, outcome: None,
) -> Ran:
    """Run what is missing until the next cell would not fit into the minutes. The first one of a call always begins.

    A cell that fails is recorded with its error; one that failed where others had run before is tried once more in a
    process of its own. One that runs into the end of the minutes is left to the next call, unless it had all of them.
    """
    end_s = time.monotonic() + 60 * minutes
    waiting = missing(cells, store, retry=retry)
    done = failed = 0
    with _Processes(store) as processes:
        for number, cell in enumerate(waiting):
            left_s, needed_s = end_s - time.monotonic(), expected_s(cell, cells, store)
            if number and left_s < needed_s:
                break
            on_start(cell)
            outcome = processes.run(cell, limit_s(needed_s), left_s)
            if outcome is None and number:
                break  # the next call gives it all its minutes
            outcome = outcome or Outcome("failed", 60 * minutes, error=f"not finished within {minutes:g} minutes")
            store.add(cell.key, outcome, datetime.now(UTC).isoformat(timespec="seconds"))
            done, failed = done + (outcome.status != "failed"), failed + (outcome.status == "failed")
            on_cell(cell, outcome)
    return Ran(done, failed, len(waiting) - done - failed)


def limit_s(needed_s: float) -> float:
    """For how long a cell may run that is thought to need so long."""
    return min(MOST_LIMIT_S, max(LEAST_LIMIT_S, LIMIT_FACTOR * needed_s))


class _Processes:
    """One at a time, which goes on from cell to cell of its group as long as nothing fails."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._process: CellProcess | None = None

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def run(self, cell: Cell, limit_s: float, left_s: float) -> Outcome | None:
        """What came of it; None if the call's time, of which `left_s` are left, was up before its own limit."""
        if self._process is not None and self._process.group != cell.group:
            self._close()
        end_s = time.monotonic() + left_s
        while True:
            left_s, is_used = end_s - time.monotonic(), self._process is not None
            if self._process is None:
                self._process = CellProcess(cell.group, self._store.folder)
            outcome = self._process.run(cell, min(limit_s, left_s))
            if outcome is None or outcome.status == "failed":
                self._close()
            if outcome is None and limit_s < left_s:
                return Outcome("failed", limit_s, error=f"not finished within its limit of {limit_s:.0f} s")
            if outcome is None or outcome.status != "failed" or not is_used:
                return outcome

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.close()
