"""Cells run in processes of their own: what fails, dies, hangs or is cut off costs no more than itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from multi_cells import Doing

from ssd_lab.bench.multi import running
from ssd_lab.bench.multi.process import CellProcess, Outcome, descendants, is_there
from ssd_lab.bench.multi.running import Ran, expected_s, limit_s, missing, run_cells
from ssd_lab.bench.multi.store import RESULTS, Store
from ssd_lab.errors import ConfigError

LONG = 30.0  # minutes


@pytest.mark.full
def test_what_goes_wrong_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    cells = [
        Doing("wrong", "fail", shares="two"),
        Doing("first", "well"),
        Doing("refused", "refuse"),
        Doing("second", "fail after others"),  # which is tried once more alone
        Doing("third", "well"),
        Doing("later", "well", thought_s=1e9),  # would not fit into what is left of the minutes
    ]
    store = Store(tmp_path, {})
    ran = run_cells(cells, store, minutes=LONG)
    assert (ran.done, ran.failed, ran.left) == (4, 1, 1)
    lines = {key.removeprefix("links/"): line for key, line in store.results.items()}
    assert [line["status"] for line in lines.values()] == ["failed", "done", "refused", "done", "done"]
    assert lines["second"]["result"]["process"] != lines["first"]["result"]["process"]
    assert lines["third"]["result"]["process"] == lines["second"]["result"]["process"]
    assert lines["third"]["result"]["cells before"] == 1
    assert lines["refused"]["error"] == "three do not divide"
    assert lines["wrong"]["error"] == "RuntimeError: it cannot be"
    assert [cell.name for cell in missing(cells, store)] == ["later"]
    assert [cell.name for cell in missing(cells, store, retry=True)] == ["wrong", "later"]
    assert Store(tmp_path, {}).results == store.results
    assert [line["key"] for line in map(json.loads, (tmp_path / RESULTS).read_text().splitlines())] == [*store.results]


@pytest.mark.full
def test_a_process_that_dies_costs_its_cell_alone(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    ran = run_cells([Doing("dead", "die"), Doing("next", "well")], store, minutes=LONG)
    assert (ran.done, ran.failed) == (1, 1)
    assert "its process ended: killed by SIGKILL" in store.results["links/dead"]["error"]


def test_a_call_ends_with_its_minutes_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first cell of a call always begins; one that the minutes cut off gets all of them next time, and fails if
    they are too few.
    """

    class Process:
        def __init__(self, group: str, folder: Path) -> None:
            self.group = group

        def run(self, cell: Doing, limit_s: float) -> Outcome | None:
            return None if cell.what == "hang" else Outcome("done", 1.0, {})

        def close(self) -> None: ...

    monkeypatch.setattr(running, "CellProcess", Process)
    store = Store(tmp_path, {})
    cells = [Doing("long", "well", thought_s=5000.0), Doing("stuck", "hang"), Doing("last", "well", thought_s=0.5)]
    assert run_cells(cells, store, minutes=1.0) == Ran(done=1, failed=0, left=2)
    assert run_cells(cells, store, minutes=1.0) == Ran(done=1, failed=1, left=0)
    assert store.results["links/stuck"]["error"] == "not finished within 1 minutes"


def test_limits_follow_what_cells_of_a_piece_took(tmp_path: Path) -> None:
    cells = [Doing("one", "well", thought_s=10.0), Doing("two", "well", thought_s=40.0)]
    store = Store(tmp_path, {})
    assert expected_s(cells[1], cells, store) == 40.0
    store.results["links/one"] = {"key": "links/one", "status": "done", "seconds": 30.0}
    assert expected_s(cells[1], cells, store) == 120.0
    assert limit_s(1.0) == 120.0 and limit_s(60.0) == 300.0 and limit_s(1e6) == 540.0


def test_a_process_ends_with_all_that_it_started(tmp_path: Path) -> None:
    process = CellProcess("one", tmp_path)
    try:
        outcome = process.run(Doing("well", "well"), 300.0)
        assert outcome is not None and outcome.result is not None
        pid = outcome.result["process"]
        assert process.run(Doing("stuck", "hang"), 2.0) is None
        started = descendants(pid)
        assert len(started) == 1
    finally:
        process.close()
    assert not any(map(is_there, (pid, *started)))


def test_a_folder_is_of_one_report(tmp_path: Path) -> None:
    store = Store(tmp_path, {"devices": ["cpu", "cpu"], "small": True})
    (tmp_path / RESULTS).write_text('{"key": "links/a", "status": "done"}\n{"key": "links/b", "sta')
    with pytest.raises(ConfigError, match=r"other settings \(devices \['cpu', 'cpu'\] there and \['cpu'\] here\)"):
        Store(tmp_path, {"devices": ["cpu"], "small": True})
    again = Store(tmp_path, {"devices": ["cpu", "cpu"], "small": True})
    assert [*again.results] == ["links/a"]  # a line that was cut off is none
    with store.locked(), pytest.raises(ConfigError, match="another call works on"), again.locked():
        pass
    with again.locked():
        pass
    fresh = Store(tmp_path, {"devices": ["cpu"]}, fresh=True)
    assert fresh.results == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Store(tmp_path / "file" / "below", {})
