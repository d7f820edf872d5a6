"""Widgets without a browser: traits, links, what is shown where nothing can draw, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from recorded_traces import recorded_trace

import ssd_lab
from ssd_lab.errors import ConfigError
from ssd_lab.notebooks.results import machines
from ssd_lab.results import Comparison, RunResult
from ssd_lab.simulate.closed_form import async_over_sync_bound
from ssd_lab.trace import RoundRecord, SequenceRound, Trace, compute_metrics
from ssd_lab.widgets import (
    AcceptanceView,
    CacheView,
    Playground,
    Race,
    Selection,
    SpeedExplorer,
    SpeedMap,
    TextView,
    Timeline,
    TreeStepper,
    explore,
)
from ssd_lab.widgets.view_model.speed import closed_form_speeds
from ssd_lab.widgets.view_model.speed_map import gain_at

TRACE = recorded_trace(rounds=10, seed=3)
VIEWS = (TreeStepper, TextView, CacheView, AcceptanceView, Timeline)


def result(trace: Trace) -> RunResult:
    return RunResult([], compute_metrics(trace), trace, trace.meta["strategy"])


def test_widgets_that_share_a_selection_move_together():
    shared = Selection()
    widgets = [view(TRACE, selection=shared) for view in VIEWS]
    alone = TreeStepper(TRACE, selection=Selection())
    widgets[0].select(step=4, place="recovery")
    assert all(widget.selection["step"] == 4 for widget in widgets) and alone.selection["step"] == 0
    widgets[3].selection = {**shared.value, "step": 6}  # as a page does
    assert shared.value["step"] == widgets[0].selection["step"] == 6


def test_alone_a_view_opens_on_a_round_that_rejects_and_rounds_count_as_on_the_screen():
    opened = TreeStepper({"drafts": TRACE, "empty": Trace({})}).selection
    record = [r.sequences[0] for r in TRACE.rounds][opened["step"]]
    assert opened["run"] == 0 and opened["place"] == f"draft:{record.num_accepted}" and 0 < record.num_accepted < 4
    shared = Selection(round=5)
    assert shared.value["step"] == 4
    shared.select(round=7)
    assert shared.value["step"] == 6 and "round" not in shared.value


def test_a_tour_is_a_view_before_the_tree_and_words_where_nothing_draws():
    assert TreeStepper(TRACE, tour=True).views == ["story", "stepper"] and TreeStepper(TRACE).views == ["stepper"]
    told = TreeStepper(TRACE, tour=True).tables()[0]
    words = dict(told.rows)
    record = [r.sequences[0] for r in TRACE.rounds][TreeStepper(TRACE).selection["step"]]
    assert words["Kept"].count(" ") == record.num_accepted - 1 and "Rejected" in words
    assert words["Prepared meanwhile"].startswith("9 outcomes; the one that came is a hit")


def test_a_race_has_a_line_for_each_run_on_each_clock():
    alone = RoundRecord(0, 0.0, 1.0, [sequence_alone()])
    race = Race({"drafts": TRACE, "alone": Trace({}, rounds=[alone])})
    rows = race.tables()[0].rows
    assert [row[0] for row in rows] == ["drafts", "drafts", "alone", "alone"]
    assert rows[-1][1].startswith("simulated on published") and rows[-1][3] == "0.018 s", "54.7 tokens a second"


def sequence_alone() -> SequenceRound:
    return SequenceRound(0, 4, [], [], [], 0, 99, 0.9, 1, "none")


def test_a_place_belongs_to_its_round():
    shared = Selection()
    shared.select(step=2, place="draft:1")
    shared.select(step=3)
    assert shared.value["place"] is None


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_is_a_table_where_nothing_can_draw(view: type):
    widget = view(TRACE)
    widget.select(step=3)
    bundle, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"].count("<table") == 2 and "tokens/round" in bundle["text/plain"]


def test_the_table_of_a_round_has_its_numbers():
    widget = TreeStepper(TRACE)
    widget.select(step=3)
    record = TRACE.rounds[3].sequences[0]
    rows = widget.tables()[0].rows
    assert [row[2] for row in rows[:-1]] == [f"{prob:.3f}" for prob in record.target_probs]
    assert [row[4] for row in rows].index("rejected" if record.num_accepted < 4 else "bonus") == record.num_accepted


def test_texts_are_escaped_in_tables():
    html = TextView(TRACE)._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;" in html


def test_explore_takes_whatever_holds_traces():
    comparison = Comparison({"one": result(TRACE), "two": result(TRACE)})
    assert [run["name"] for run in explore(comparison).data["runs"]] == ["one", "two"]
    assert [run["name"] for run in explore(result(TRACE)).data["runs"]] == ["async_tree"]
    assert [run["name"] for run in explore({"mine": TRACE}).data["runs"]] == ["mine"]
    with pytest.raises(ConfigError, match="no traces in int"):
        explore(3)


def test_results_keep_their_tables_and_add_views_only_in_a_notebook():
    held = result(TRACE)
    assert "<table" in held._repr_html_() and held._repr_mimebundle_() == {}
    assert "<table" in TRACE._repr_html_() and TRACE._repr_mimebundle_() == {}


def test_in_a_notebook_a_result_draws_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ssd_lab.widgets.display.in_notebook", lambda: True)
    assert list(result(TRACE)._repr_mimebundle_()) == ["application/vnd.jupyter.widget-view+json"]
    assert result(Trace({"strategy": {}}))._repr_mimebundle_() == {}  # no rounds: the table says it all


def test_the_speed_explorer_answers_a_change_with_a_new_simulation():
    explorer = SpeedExplorer(k=2)
    before = dict(explorer.simulated)
    explorer.settings = {**explorer.settings, "acceptance": 0.2}
    assert explorer.simulated["sync"] < before["sync"]
    for name, speed in closed_form_speeds(explorer.settings).items():
        assert explorer.simulated[name] == pytest.approx(speed, rel=0.05)
    with pytest.raises(ConfigError, match="unknown settings"):
        SpeedExplorer(speed=1)


@pytest.fixture
def playground(tiny_pair):
    made = Playground(
        target=tiny_pair.target, draft=tiny_pair.draft, dtype="float32", threads=1, max_tokens=24, warm=False
    )
    made.sent = []
    made.send = lambda message, *_: made.sent.append(message)
    yield made
    made.close()


def test_the_playground_streams_text_and_then_has_the_whole_trace(playground):
    playground.run("Hello", fields={"k": 2, "f": 2})
    playground.wait(60)
    assert playground.error is None
    assert playground.sent[-1]["running"] is False and "done: 24 tokens" in playground.sent[-1]["status"]
    texts = [message["text"] for message in playground.sent if "text" in message]
    assert texts[-1] == playground.text and all(playground.text.startswith(text) for text in texts)
    assert len(playground.trace.requests[0].token_ids) == 24
    data = next(message["data"] for message in reversed(playground.sent) if "data" in message)
    assert len(data["runs"][0]["requests"][0]["steps"]) == len(playground.trace.rounds)


def test_the_playgrounds_text_is_what_the_public_interface_gives(playground, tiny_pair):
    playground.run("Hello", strategy="sync_chain", fields={"k": 2})
    playground.wait(60)
    models = {"target": tiny_pair.target, "draft": tiny_pair.draft, "dtype": "float32", "threads": 1}
    run = ssd_lab.run("Hello", strategy="sync_chain", k=2, max_tokens=24, progress=False, **models)
    assert playground.text == run.outputs[0].text


def test_stopping_keeps_what_was_written(playground, hold):
    hold()
    playground.run("Hello", max_tokens=400, fields={"k": 2, "f": 1})
    while not any("text" in message for message in playground.sent):
        assert playground.running
        time.sleep(0.005)
    playground.stop()
    hold()  # on to the next text, before which nobody looks
    playground.wait(60)
    assert playground.trace.requests[0].finish_reason == "cancelled" and len(playground.trace.rounds) > 0
    assert playground.sent[-1]["status"].startswith("stopped")


def test_what_is_wrong_is_said_in_words_and_the_next_run_works(playground):
    for order, words in (
        ({"fields": {"k": 0}}, "greater than or equal to 1"),
        ({"fields": {"color": 1}}, "unknown field"),
        ({"max_tokens": 0}, "max_tokens=0: Input should be greater than or equal to 1"),
        ({"prompt": " "}, "the prompt is empty"),
    ):
        playground.run(**{"prompt": "Hello", **order})
        playground.wait(60)
        assert words in playground.error and playground.sent[-1]["error"] == playground.error
    playground.run("Hello", fields={"k": 2, "f": 1})
    playground.wait(60)
    assert playground.error is None


def test_one_run_at_a_time(playground, hold):
    hold()
    playground.run("Hello", max_tokens=300, fields={"k": 2, "f": 1})
    with pytest.raises(ConfigError, match="a run is going on"):
        playground.run("Hello")
    playground.stop()


def test_the_playgrounds_controls_come_from_the_schemas(playground):
    assert playground.strategies["async_tree"]["properties"]["k"]["maximum"] == 32
    assert set(playground.strategies) == set(ssd_lab.strategies())
    with pytest.raises(ConfigError, match="unknown strategy"):
        Playground(strategy="nonesuch")


def test_views_need_no_torch_and_no_engine():
    code = (
        "import sys, ssd_lab.widgets, ssd_lab.widgets.page, ssd_lab.widgets.views;"
        "sys.exit('torch' in sys.modules or any(m.startswith('ssd_lab.engine') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_is_made_without_the_notebook_packages(tmp_path):
    TRACE.save(tmp_path / "a.jsonl")
    code = (
        "import sys; sys.modules.update(anywidget=None, traitlets=None, ipywidgets=None);"
        "from ssd_lab.trace import load_trace;"
        f"load_trace({str(tmp_path / 'a.jsonl')!r}).to_html({str(tmp_path / 'a.html')!r});"
        "from ssd_lab.errors import ConfigError\n"
        "try:\n import ssd_lab.widgets; ssd_lab.widgets.explore\n"
        "except ConfigError as error: sys.exit('.[notebook]' not in str(error))\n"
        "sys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (tmp_path / "a.html").stat().st_size > 10_000


def test_a_playground_closes_in_time_and_a_run_that_goes_on_frees_its_models(monkeypatch: pytest.MonkeyPatch):
    from ssd_lab.widgets import playground

    class Model:
        def close(self) -> None:
            freed.set()

    monkeypatch.setattr(playground, "CLOSE_S", 0.05)
    go_on, freed = threading.Event(), threading.Event()
    widget = Playground(warm=False)
    widget._llm = ("key", Model())  # type: ignore[assignment]
    widget._start(lambda _: go_on.wait(30), None)
    with pytest.warns(RuntimeWarning, match=r"did not end within 0\.05 s"):
        widget.close()
    assert not freed.is_set()
    go_on.set()
    widget.wait(30)
    assert freed.is_set()


def test_a_run_that_waits_in_vain_for_the_one_before_it_says_so(monkeypatch: pytest.MonkeyPatch):
    from ssd_lab.widgets import playground

    monkeypatch.setattr(playground, "BEFORE_S", 0.05)
    go_on = threading.Event()
    widget = Playground(warm=False)
    widget._start(lambda _: go_on.wait(30), None)
    first = widget._thread
    widget._start(lambda _: None, None)
    widget.wait(30)
    assert widget.error is not None and "did not end within 0.05 s" in widget.error
    go_on.set()
    assert first is not None
    first.join(30)
    widget.close()


def test_the_map_has_machines_from_the_simulator_and_this_one_from_its_runs():
    found = SpeedMap(machines(), k=6, fan_out=3, acceptance=0.8, hit_rate=0.85)
    one, two, five = found.points
    assert one["gain"] < 1 < two["gain"] and one["draft_time"] == two["draft_time"], "one device is shared"
    assert five["draft_time"] == pytest.approx(6 * 2.54 / 11.45, rel=0.01) and five["gain"] == pytest.approx(
        1.57, rel=0.03
    )
    assert found.picture.count("<circle") == 3 and "#D55E00" in found.picture
    assert "4 + 1 H100" in repr(found) and "<svg" in found._repr_html_() and "<table" in found._repr_html_()
    with pytest.raises(ConfigError, match="sync_chain and async_tree"):
        SpeedMap(runs={"tree": TRACE})
    with pytest.raises(ConfigError, match="unknown hardware"):
        SpeedMap({"mine": "nowhere"})


@pytest.mark.parametrize("draft_time", [0.0, 0.5, 1.0, 2.0])
def test_the_map_is_the_papers_formula(draft_time: float):
    assert gain_at(draft_time, 1.0) == pytest.approx(async_over_sync_bound(draft_time))
    assert gain_at(draft_time, 0.0) == pytest.approx(1.0)
