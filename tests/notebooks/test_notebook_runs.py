"""Every notebook runs from top to bottom; the results are kept, and the site shows them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[dev]'")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "hooks"))

import executed

LIMIT_S = 120


@pytest.mark.quick("03_draft_trees")  # the shortest; half a minute each
@pytest.mark.grid(full=20)
@pytest.mark.notebook
@pytest.mark.timeout(5 * LIMIT_S)
@pytest.mark.parametrize("path", executed.notebook_paths(), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path):
    before_s = processor_time_of_children_s()
    notebook = executed.execute(path)
    took_s = processor_time_of_children_s() - before_s
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "a cell was not executed"
    errors = [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert not errors
    assert took_s < LIMIT_S, f"{took_s:.0f} s; a reader waits at most {LIMIT_S}"


def processor_time_of_children_s() -> float:
    """Of processes that have ended; a clock on the wall would count what else the machine does."""
    used = os.times()
    return used.children_user + used.children_system


@pytest.mark.notebook
def test_a_notebook_that_fails_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The executor itself: a wrong cell raises, and nothing is kept of it."""
    import nbformat
    from nbclient.exceptions import CellExecutionError

    monkeypatch.setattr(executed, "KEPT", tmp_path / "kept")
    broken = tmp_path / "01_broken.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import ssd_lab\nssd_lab.nothing")]), broken
    )
    with pytest.raises(CellExecutionError, match="nothing"):
        executed.execute(broken)
    assert not list(tmp_path.glob("kept/*"))


@pytest.mark.notebook
def test_results_are_kept_until_the_notebook_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import nbformat

    monkeypatch.setattr(executed, "KEPT", tmp_path / "kept")
    path = tmp_path / "01_clock.ipynb"

    def write(code: str) -> None:
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)

    def result() -> str:
        return executed.executed(path).cells[0].outputs[0].data["text/plain"]

    write("import time; time.time()")
    first = result()
    assert result() == first
    write("import time; time.time() + 1")
    assert result() != first
    assert len(list((tmp_path / "kept").iterdir())) == 1, "the old results are gone"
