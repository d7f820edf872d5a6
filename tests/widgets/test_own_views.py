"""Views of the user's own: what the front end and tables get of them, what is refused, and one that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recorded_traces import recorded_trace
from typer.testing import CliRunner

import ssd_lab
from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError
from ssd_lab.trace import Trace
from ssd_lab.widgets import Bars, Chart, OwnView, Table, explore
from ssd_lab.widgets.own import VIEWS
from ssd_lab.widgets.page import html_page
from ssd_lab.widgets.view_model import view_data
from ssd_lab.widgets.view_model.live import LiveRun

TRACE = recorded_trace(rounds=6, seed=3)


@pytest.fixture(autouse=True)
def _nothing_stays_registered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(VIEWS, "_views", {})


def kept(trace: Trace) -> Chart:
    """How much was kept."""
    return Chart("tokens", {"kept": [(row["round"], row["num_accepted"]) for row in trace.to_rows()]})


def origins(trace: Trace) -> Bars:
    return Bars(trace.metrics.origin_counts, "rounds")


def words(trace: Trace) -> Table:
    return Table(["<b>what</b>", "count"], [["rounds", str(len(trace.rounds))]], notes=["counted"])


def test_each_kind_reaches_the_page_the_widgets_and_the_tables():
    for view in (kept, origins, words):
        ssd_lab.register_view(view)
    ssd_lab.register_view(lambda_like("nothing", lambda trace: None))
    drawn = {each["name"]: each for each in view_data(TRACE)["runs"][0]["own"]}
    assert list(drawn) == ["kept", "origins", "words"], "what shows nothing of a trace has no place"
    accepted = [row["num_accepted"] for row in TRACE.to_rows()]
    assert drawn["kept"]["lines"][0]["points"] == [[float(i), float(n)] for i, n in enumerate(accepted)]
    assert drawn["kept"]["title"] == "Kept" and drawn["kept"]["help"] == "How much was kept."
    assert sum(value for _, value in drawn["origins"]["bars"]) == 6
    page = html_page(TRACE)
    assert '"name":"words"' in page and "<b>what" not in page
    tables = {table.lead: table for table in explore(TRACE).tables()}
    assert tables["Kept"].rows[0] == ["1", "kept", f"{accepted[0]}"], "rounds count from 1, as on the screen"
    assert tables["Words"].rows == [["rounds", "6"]]
    assert OwnView(TRACE, "kept").views == ["own:kept"]
    assert [table.lead for table in OwnView(TRACE, "origins").tables()] == ["Origins"]
    assert "own" not in LiveRun("run").part(TRACE), "while a run goes on its rounds come in parts"


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("a text", "it returned str: return a Chart"),
        (Chart("y", {"a": [(0, float("nan"))]}), "cannot be drawn"),
        (Bars({"a": -1.0}), "below 0"),
    ],
)
def test_a_view_that_fails_is_a_warning_and_the_others_are_drawn(returned: object, says: str):
    ssd_lab.register_view(lambda_like("wrong", lambda trace: returned))
    ssd_lab.register_view(kept)
    with pytest.warns(UserWarning, match=f"the view 'wrong' failed: .*{says}"):
        wrong, right = view_data(TRACE)["runs"][0]["own"]
    assert wrong["kind"] == "error" and says in wrong["text"] and right["kind"] == "chart"


def test_what_is_no_view_is_refused_and_a_cell_run_twice_is_not():
    ssd_lab.register_view(kept)
    ssd_lab.register_view(kept)
    another = lambda_like("kept", lambda trace: None)
    another.__module__ = "elsewhere"
    with pytest.raises(ConfigError, match="'kept' is registered already"):
        ssd_lab.register_view(another)
    with pytest.raises(ConfigError, match="is no view"):
        ssd_lab.register_view(Chart)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="unknown view 'keep'; registered are kept"):
        OwnView(TRACE, "keep")


def test_the_command_draws_those_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "views_of_mine.py").write_text(
        "import ssd_lab\nfrom ssd_lab.widgets import Bars\n\n\n"
        "@ssd_lab.register_view\ndef from_a_module(trace):\n    return Bars({'rounds': len(trace.rounds)})\n"
    )
    TRACE.save(tmp_path / "one.jsonl")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["view", "one.jsonl", "--import", "views_of_mine", "--json"])
    assert done.exit_code == 0, done.output
    assert '"name":"from_a_module"' in Path(json.loads(done.stdout)["page"]).read_text()


def lambda_like(name: str, function):
    function.__name__ = function.__qualname__ = name
    return function
