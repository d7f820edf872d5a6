"""The widgets in JupyterLab 4 with a kernel: drawn, stepped, linked, run, stopped; the kernel knows the selection."""

from __future__ import annotations

import json
import re
import statistics
import time
from typing import Any

import pytest
from browser_pages import THEMES, WIDTHS
from recorded_traces import recorded_trace

from ssd_lab.widgets.speed_explorer import simulated_speeds
from ssd_lab.widgets.view_model.speed import DEFAULTS, closed_form_speeds

pytestmark = pytest.mark.browser

TRACE = recorded_trace(rounds=20, seed=3)
LOAD = """
from ssd_lab.trace import load_trace
from ssd_lab.widgets import *
trace = load_trace('trace.jsonl')
shared = Selection()
""".strip()


@pytest.fixture
def open_notebook(jupyter, open_page):
    """`open_notebook(name, cells)`: a page on which all cells have run."""
    TRACE.save(jupyter.folder / "trace.jsonl")

    def opened(name: str, cells: list[str], **options: Any) -> Any:
        allowed = (jupyter.address, jupyter.address.replace("http", "ws"))
        return open_page(jupyter.notebook(name, cells), allowed=allowed, used_up=True, **options)

    return opened


def run_all(page: Any) -> None:
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")


def run_cell(page: Any, number: int) -> str:
    """Run one cell again and return the text of its output."""
    page.evaluate(
        "async (number) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = number;"
        " await window.jupyterapp.commands.execute('notebook:run-cell'); }",
        number,
    )
    return cell(page, number).locator(".jp-OutputArea-output").first.inner_text()


def cell(page: Any, number: int) -> Any:
    return page.locator(".jp-Notebook .jp-Cell").nth(number)


def where(scope: Any) -> str:
    return scope.locator(".ssd-where").first.inner_text()


def test_linked_widgets_move_together_and_the_kernel_knows(open_notebook):
    cells = [
        LOAD,
        "TreeStepper(trace, selection=shared)",
        "TextView(trace, selection=shared)",
        "CacheView(trace, selection=shared)",
        "AcceptanceView(trace, selection=shared)",
        "Timeline(trace, selection=shared)",
        "print(shared.value)",
        "shared.select(step=11)\nprint(shared.value)",
    ]
    with open_notebook("linked", cells) as page:
        run_all(page)
        stepper, text, cache = cell(page, 1), cell(page, 2), cell(page, 3)
        for number, name in enumerate(("stepper", "text", "cache", "acceptance", "timeline"), 1):
            cell(page, number).locator(f"section.ssd-{name}").wait_for()
        cell(page, 1).get_by_text("round 12 of 20").wait_for()
        stepper.locator("[data-do=first]").click()
        assert where(text) == "round 1 of 20"
        stepper.locator("[data-do=next]").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert where(stepper) == where(cache) == "round 3 of 20"
        text.locator(".ssd-word[data-step='5']").first.click()
        assert where(stepper) == "round 6 of 20"
        end_s = time.monotonic() + 60
        while "'step': 5" not in run_cell(page, 6):  # it is on its way to the kernel
            assert time.monotonic() < end_s
            time.sleep(0.5)
        run_cell(page, 7)
        stepper.get_by_text("round 12 of 20").wait_for()
        own = [r.sequences[0] for r in TRACE.rounds][11]
        lead = stepper.locator(".ssd-lead").inner_text()
        assert f"{own.num_accepted} of 4 accepted" in lead
        shown = cell(page, 3).locator("[data-cache=verdict]").inner_text()
        assert shown.startswith("Hit" if own.recovery_rank < own.fan_out[own.num_accepted] else "Miss")


MOVED = "Overlap(['a', 'b'], [0.5, 0.5], [0.4, 0.6])"
KEYS = ("ArrowLeft", "ArrowLeft", "x", "b", "d", "d", "ArrowRight")
CONTROLS = {  # cell, what is focused; each kind that the widgets have
    "slider": (1, "input[type=range]"),
    "button": (1, "[data-do=next]"),
    "node": (1, ".ssd-tree [data-place='draft:0']"),
    "token": (1, ".ssd-word"),
    "row": (1, "[data-table=cache] [data-place]"),
    "lanes": (1, ".ssd-lanes"),
    "summary": (1, "summary"),
    "drop-down": (2, "select"),
    "slider of a formula": (2, "input[type=range]"),
    "text": (3, "textarea"),
    "number": (3, "input[name=temperature]"),
    "checkbox": (3, "input[type=checkbox]"),
    "strategy": (3, "select[name=strategy]"),  # letters choose another
    "end of a bar": (4, ".ssd-grip"),
    "drawn node": (5, ".ssd-drawn-node[role=button]"),
}


def the_simulators_answer_is_beside_the_formula(explorer: Any) -> None:
    settings = {**DEFAULTS, "k": 2, "batch": 4}
    explorer.get_by_label("lookahead k, tokens").fill("2")
    explorer.get_by_label("batch, sequences").fill("4")
    formula, simulated = closed_form_speeds(settings), simulated_speeds(settings)
    row = explorer.locator("tr[data-row=asynchronous]")
    assert row.locator("[data-speed=formula]").inner_text() == f"{formula['async']:.2f}×"
    row.get_by_text(f"{simulated['async']:.2f}×").last.wait_for()


@pytest.mark.full
def test_the_kernel_answers_a_widget_and_keys_pressed_in_one_never_reach_the_notebook(open_notebook):
    """JupyterLab's commands of one key cut cells, insert them and fold sections: from no kind of control."""
    cells = [LOAD, "trace", "SpeedExplorer()", "Playground(warm=False)", MOVED, "TreeShape([-1, -1, 0])", "explore(3)"]
    state = """() => { const notebook = window.jupyterapp.shell.currentWidget.content;
        return { cells: notebook.widgets.map((cell) => cell.model.sharedModel.getSource()),
                 hidden: notebook.widgets.filter((cell) => cell.isHidden).length }; }"""
    with open_notebook("keys", cells, height=2600) as page:
        run_all(page)
        cell(page, 2).locator("[data-table=speed]").wait_for()
        cell(page, 3).locator("[data-do=run]").wait_for()
        cell(page, 1).locator(".ssd-later > summary").click()
        cell(page, 1).locator(".ssd-lanes").wait_for()
        cell(page, 3).locator("summary").click()  # more settings
        before = page.evaluate(state)
        assert len(before["cells"]) == len(cells)
        the_simulators_answer_is_beside_the_formula(cell(page, 2).locator(".ssd-lab").first)
        for kind, (number, query) in CONTROLS.items():
            control = cell(page, number).locator(query).first
            control.focus()
            for key in KEYS:
                page.keyboard.press(key)
            kept = "document.activeElement?.closest('.ssd-lab') !== null && document.activeElement !== document.body"
            assert page.evaluate(kept), f"{kind}: the focus went elsewhere"
            assert page.evaluate(state) == before, kind
        slider = cell(page, 2).locator("input[type=range]").first
        value = float(slider.input_value())
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert float(slider.input_value()) > value, "the key is the slider's own"
        drop_down = cell(page, 3).locator("select[name=strategy]")
        drop_down.select_option("async_tree")
        drop_down.focus()
        page.keyboard.press("ArrowDown")
        assert drop_down.input_value() != "async_tree"
        error = cell(page, 6).locator(".jp-OutputArea-output").inner_text()
        assert error.startswith("ConfigError: no traces in int 3: give a Trace") and "Traceback" not in error


@pytest.mark.full
def test_a_saved_notebook_shows_its_views_when_it_is_opened_again(open_notebook, jupyter):
    with open_notebook("saved", [LOAD, "TreeStepper(trace, tour=True)"]) as page:
        run_all(page)
        cell(page, 1).locator(".ssd-beat-title").wait_for()
        page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
        page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        page.wait_for_function("!window.jupyterapp.shell.currentWidget.sessionContext.session")
        page.reload()
        again = cell(page, 1)
        again.locator(".ssd-later > summary").click()
        again.locator(".ssd-tree [data-place]").first.wait_for()
        again.locator("[data-do=first]").click()
        again.locator("[data-do=next]").click()
        assert where(again) == "round 2 of 20", "alive, though nothing ran"
        again.locator("[data-story=next]").focus()
        page.keyboard.press("ArrowRight")
        assert again.locator(".ssd-beat-title").inner_text().startswith("2.")
        assert where(again) == "round 2 of 20", "in the story the arrows go from beat to beat"
        again.locator(".ssd-stage").hover()
        page.mouse.wheel(0, 120)
        again.locator(".ssd-beat-title", has_text="3.").wait_for()


@pytest.mark.full
@pytest.mark.grid(full=2)
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_trace_as_a_cells_value_is_an_explorer_in_the_labs_theme(
    jupyter, open_notebook, keep_picture, width: int, theme: str
):
    jupyter.theme(theme)
    # the system prefers the other theme: JupyterLab's own must win
    with open_notebook(
        f"value-{width}-{theme}", [LOAD, "trace"], width=width, height=2400, theme=THEMES[theme == "light"]
    ) as page:
        run_all(page)
        root = cell(page, 1).locator(".ssd-lab").first
        root.locator("section.ssd-stepper").wait_for()
        assert not root.locator("section.ssd-timeline").is_visible(), "folded until it is asked for"
        root.locator(".ssd-later > summary").click()
        root.locator(".ssd-timeline .ssd-lanes svg").wait_for()
        assert root.get_attribute("data-theme") == theme
        assert root.locator("section").count() == 8
        assert root.locator(".ssd-summary table").is_visible()
        assert root.evaluate("(root) => root.scrollWidth <= root.clientWidth")
        root.locator(".ssd-preset").first.click()
        keep_picture(page, f"jupyter-{width}-{theme}")


# in the kernel: recorded rounds that come as a model's do, and when each came, by the wall clock
FEED = """
import json, time, types
from ssd_lab.trace import Trace, load_trace
from ssd_lab.widgets import *
recorded, arrived = load_trace('long.jsonl'), []

class Feed:
    strategy = types.SimpleNamespace(strategy_name='async_tree')
    def stream(self, prompt, params):
        start = time.monotonic()
        for number in range(len(recorded.rounds)):
            time.sleep(max(0, start + number / 20 - time.monotonic()))
            arrived.append(time.time())
            yield types.SimpleNamespace(text=f'{number} ')
    def trace_so_far(self, first_round=0):
        return Trace(recorded.meta, [], recorded.rounds[first_round:len(arrived)])
    def take_trace(self):
        return recorded
    def close(self):
        pass

playground = Playground(warm=False)
playground._llm_for = lambda strategy, fields: Feed()
playground
""".strip()
# on the page: when so many rounds were first on the screen
NOTE_SHOWN = """(root) => {
  window.shownMs = {};
  const look = () => requestAnimationFrame(() => {
    const count = Number(root.querySelector(".ssd-transport .ssd-where")?.textContent.split(" of ")[1] ?? 0);
    if (count) window.shownMs[count] ??= performance.timeOrigin + performance.now();
  });
  new MutationObserver(look).observe(root, { subtree: true, childList: true, characterData: true });
}"""


@pytest.mark.extended
@pytest.mark.full
def test_the_playgrounds_views_keep_up_with_twenty_rounds_a_second(jupyter, open_notebook, keep_figure):
    rounds = 200
    recorded_trace(rounds=rounds, seed=3).save(jupyter.folder / "long.jsonl")
    with open_notebook("keeping-up", [FEED, "print(json.dumps(arrived))"], height=2600) as page:
        run_all(page)
        root = cell(page, 0).locator(".ssd-lab").first
        root.locator("[data-do=run]").wait_for()
        root.evaluate(NOTE_SHOWN)
        root.locator("[data-do=run]").click()
        root.locator("[data-playground=status]", has_text="done").wait_for(timeout=120_000)
        arrived_s = json.loads(run_cell(page, 1))
        shown_ms = {int(count): at for count, at in page.evaluate("window.shownMs").items()}
        # none is lost: each view that has a mark for every round has as many
        for mark in (".ssd-hitcell", ".ssd-acceptance .ssd-dot[data-step]"):
            assert root.locator(mark).count() == rounds
        words = root.locator(".ssd-word[data-step]")
        assert words.evaluate_all("(words) => new Set(words.map((word) => word.dataset.step)).size") == rounds
    lags_ms = [min(at for count, at in shown_ms.items() if count > i) - 1e3 * s for i, s in enumerate(arrived_s)]
    rate, median_ms = (rounds - 1) / (arrived_s[-1] - arrived_s[0]), statistics.median(lags_ms)
    keep_figure("playground: rounds fed a second", rate)
    keep_figure("playground: from the end of a round to its picture, median ms", median_ms)
    keep_figure("playground: from the end of a round to its picture, most ms", max(lags_ms))
    keep_figure("playground: drawings of the views a second", len(shown_ms) / (arrived_s[-1] - arrived_s[0]))
    assert max(shown_ms) == rounds and len(shown_ms) <= rounds, "each drawing shows all that has come"


@pytest.mark.full
def test_the_playground_streams_stops_and_says_what_is_wrong(open_notebook, keep_figure, keep_picture):
    source = "from ssd_lab.widgets import *\nplayground = Playground(threads=1, max_tokens=64)\nplayground"
    cells = [source, "playground.wait(60); print('warm')", "print(playground.text)"]
    with open_notebook("playground", cells, height=2600) as page:  # what is outside the window is not in pictures
        run_all(page)
        root = cell(page, 0).locator(".ssd-lab").first
        root.locator("[data-do=run]").wait_for()
        page.locator(".jp-OutputArea-output", has_text="warm").wait_for()
        root.locator("[data-do=run]").click()
        text = root.locator("[data-playground=text]")
        root.locator("[data-first-ms]").wait_for()
        keep_figure("playground: first text after the click, ms", float(text.get_attribute("data-first-ms")))
        root.locator("[data-playground=status]", has_text="done:").wait_for()
        rounds = int(re.search(r"in (\d+) rounds", root.locator("[data-playground=status]").inner_text())[1])
        root.locator(".ssd-where", has_text=f"round {rounds} of {rounds}").wait_for()
        assert text.inner_text().strip() == run_cell(page, 2).strip() != ""
        keep_picture(root, "playground")

        root.get_by_label("tokens at most").fill("2000")
        root.get_by_label("prompt").fill("Count from one to one thousand.")
        root.locator("[data-do=run]").click()
        page.wait_for_function("document.querySelector('[data-playground=text]').textContent.length > 20")
        root.locator("[data-do=stop]").click()
        root.locator("[data-playground=status]", has_text=re.compile("stopped|done")).wait_for()

        root.get_by_label("k", exact=True).fill("0")
        root.locator("[data-do=run]").click()
        root.locator("[role=alert]", has_text="greater than or equal to 1").wait_for()
        root.get_by_label("k", exact=True).fill("2")
        root.get_by_label("tokens at most").fill("16")
        root.get_by_label("strategy", exact=True).select_option("sync_chain")
        root.locator("[data-do=run]").click()
        root.locator("[data-playground=status]", has_text="done: 16 tokens").wait_for()

        page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        page.wait_for_function("!window.jupyterapp.shell.currentWidget.sessionContext.session")
        root.locator("[data-do=run]").click()
        root.locator("[role=alert]", has_text="The kernel is gone").wait_for()
        assert root.locator("[data-do=run]").is_enabled()
