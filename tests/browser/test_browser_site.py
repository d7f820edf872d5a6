"""The built site in a real browser: its first screen is a run to step through; nothing comes from elsewhere."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser_pages import THEMES, WIDTHS, no_sideways_scrolling

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install -e '.[docs]'")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "hooks"))

import executed
import live_views
import notebook_pages
from test_site import built_once

TESTS = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without results of notebooks: those of this folder need only the pages' own parts."""
    return built_once(pytestconfig, tmp_path_factory)


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """The site on a server of its own."""
    handler = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing about requests."""

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def open_site(open_page: Any, address: str) -> Any:
    """`with open_site("tutorials/") as page`: everything must come from the site itself."""
    return lambda path="", **options: open_page(address + path, allowed=(address,), **options)


# what moved after it was first drawn, as a share of the window, and the bytes of the page with all that it loads
SHIFTED = """new Promise((done) => {
  let sum = 0;
  const add = (list) => list.getEntries().forEach((entry) => { if (!entry.hadRecentInput) sum += entry.value; });
  new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 100);
})"""
LOADED = """performance.getEntries().reduce((sum, entry) => sum + (entry.encodedBodySize ?? 0), 0)"""


def where(page: Any) -> str:
    return page.locator(".live-view .ssd-where").first.inner_text()


@pytest.mark.quick("390-dark")
@pytest.mark.grid(full=3)
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_screen_tells_a_round(open_site: Any, keep_picture: Any, keep_figure: Any, width: int, theme: str):
    with open_site(width=width, theme=theme) as page:
        story = page.locator(".live-view .ssd-story")
        story.locator(".ssd-beat-title").wait_for()
        drawn_ms = page.evaluate("performance.getEntriesByName('ssd-lab first view')[0].startTime")
        assert drawn_ms < 15_000, "on a machine as busy as this; alone it is a fraction of a second"
        shifted, megabytes = page.evaluate(SHIFTED), page.evaluate(LOADED) / 1e6
        assert shifted < 0.01 and 0.3 < megabytes < 3
        keep_figure(f"home at {width}: first beat, ms", drawn_ms)
        keep_figure(f"home at {width}: layout shift, thousandths of the window", 1e3 * shifted)
        keep_figure(f"home at {width}: megabytes without models", megabytes)
        assert story.locator(".ssd-beat").bounding_box()["y"] < 900
        assert page.locator(".live-view .ssd-lab").first.get_attribute("data-theme") == theme
        titles = []
        for _ in range(8):
            titles.append(story.locator(".ssd-beat-title").inner_text())
            assert story.locator("[aria-current=step]").inner_text() == str(len(titles))
            assert no_sideways_scrolling(page), titles[-1]
            page.keyboard.press("ArrowRight")
        assert titles[0].startswith("1. One slow token") and titles[-1].startswith("8. A hit") and len(set(titles)) == 8
        keep_picture(page, f"site-home-{width}-{theme}")


@pytest.mark.full
def test_the_story_is_the_traces_and_follows_the_chosen_round(open_site: Any, keep_picture: Any):
    (trace,) = live_views.recorded("story").values()
    with open_site() as page:
        story = page.locator(".live-view .ssd-story")
        story.locator(".ssd-dot-button").nth(4).click()
        number = int(where(page).split()[1])
        record = [r.sequences[0] for r in trace.rounds][number - 1]
        assert story.locator(".ssd-chip.guess.accepted").count() == record.num_accepted > 0
        coins = story.locator(".ssd-coin small").all_inner_texts()
        shown = [float(text.split()[0]) for text in coins]
        assert shown == pytest.approx(record.coins[: record.num_accepted + 1], abs=0.006)
        assert f"{record.num_accepted + 1} tokens from one pass" in story.locator(".ssd-beat").inner_text()
        story.locator(".ssd-dot-button").nth(7).click()
        following = [r.sequences[0] for r in trace.rounds][number].draft_tokens
        assert story.locator(".ssd-following .ssd-chip").count() == len(following)
        story.locator("[data-story=play]").click()  # from the end it begins again
        assert story.locator(".ssd-beat-title").inner_text().startswith("1.")
        story.locator("[data-story=play]").click()
        page.locator(".live-view [data-do=next]").first.focus()
        page.keyboard.press("ArrowRight")
        assert where(page).startswith(f"round {number + 1} of "), "elsewhere the arrows step through the rounds"


STANDS_STILL = """(name) => new Promise((done) => {
  const element = document.querySelector(name);
  let [before, frames] = [element.scrollTop, 0];
  const look = () => {
    [before, frames] = [element.scrollTop, element.scrollTop === before ? frames + 1 : 0];
    return frames > 15 ? done(before) : requestAnimationFrame(look);
  };
  look();
})"""


def test_the_story_goes_on_by_wheel_and_finger_and_then_the_page_does(open_site: Any):
    at_least = "(beat) => parseInt(document.querySelector('.ssd-beat-title').textContent) >= beat"
    with open_site(width=390, used_up=True) as page:  # its touch screen is switched on
        page.emulate_media(reduced_motion="reduce")
        stage = page.locator(".live-view .ssd-stage")
        stage.scroll_into_view_if_needed()
        before = page.evaluate("scrollY")
        stage.hover()
        page.mouse.wheel(0, 120)
        page.wait_for_function(at_least, arg=2)
        swipe(page, stage, -200)
        page.wait_for_function(at_least, arg=3)
        page.evaluate(
            STANDS_STILL, ".live-view .ssd-beats"
        )  # a flick goes on for a while, and takes no wheel meanwhile
        page.mouse.wheel(0, 2000)
        page.wait_for_function(at_least, arg=8)
        assert page.evaluate("document.getAnimations().length") == 0, (
            "pictures are stills where less motion is asked for"
        )
        assert page.evaluate("scrollY") == before
        for _ in range(20):  # a wheel that still turns stays where it began
            page.mouse.wheel(0, 300)
            page.wait_for_timeout(100)
            if page.evaluate("scrollY") > before:
                break
        assert page.evaluate("scrollY") > before, "behind the last beat the page goes on"


def swipe(page: Any, element: Any, pixels: int, steps: int = 10) -> None:
    """A finger on the element that moves up or down."""
    box, session = element.bounding_box(), page.context.new_cdp_session(page)
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    x, y = box["x"] + 80, box["y"] + 80
    for kind, done in [("touchStart", 0), *(("touchMove", step / steps) for step in range(1, steps + 1))]:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y + pixels * done}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.full
def test_in_the_race_each_run_writes_the_same_text(open_site: Any):
    with open_site() as page:
        race = page.locator(".live-view .ssd-race")
        race.scroll_into_view_if_needed()
        texts = [lane.inner_text() for lane in race.locator(".ssd-race-text").all()]
        assert len(texts) == 3 and len(set(texts)) == 1
        there = "(lanes) => lanes.map((lane) => lane.querySelectorAll('.there').length)"
        assert len(set(race.locator(".ssd-race-lane").evaluate_all(there))) == 1, "a still shows the end"
        race.get_by_label("time").fill("300")
        alone, chain, tree = race.locator(".ssd-race-lane").evaluate_all(there)
        assert 0 < alone < chain < tree, "on the simulated clock of the published machine"
        race.locator("[data-race=play]").click()
        page.wait_for_function("document.querySelectorAll('.ssd-race-lane .there').length > 30")
        race.locator("[data-race=play]").click()


def test_without_a_script_the_story_is_there_as_text(browser: Any, address: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    stills = page.locator("noscript table")
    assert stills.first.bounding_box() is not None and "The draft guesses" in stills.first.inner_text()
    assert "autoregressive" in stills.last.inner_text() and stills.last.bounding_box() is not None
    context.close()


@pytest.mark.full
def test_the_site_works_from_its_files(open_page: Any, site: Path):
    """No server: pages, tabs, arrows, and the search, whose worker a browser refuses to a file."""
    with open_page((site / "index.html").as_uri()) as page:
        title = page.locator(".ssd-beat-title")
        assert title.inner_text().startswith("1.")
        page.keyboard.press("ArrowRight")
        assert title.inner_text().startswith("2."), "the page names the arrows, and nothing needs the focus first"
        page.locator(".md-search__input").click()
        page.keyboard.type("fallback", delay=20)
        page.locator(".md-search-result__link").first.wait_for()
        page.keyboard.press("Escape")
        page.locator(".md-tabs__link", has_text="Tutorials").click()
        page.wait_for_url("**/tutorials/index.html")


def test_the_views_follow_the_sites_own_switch_of_colours(open_site: Any):
    with open_site(theme="light") as page:
        view = page.locator(".live-view .ssd-lab").first
        assert view.get_attribute("data-theme") == "light"
        page.locator("label[for=__palette_1]").first.click()
        page.locator(".live-view .ssd-lab[data-theme=dark]").first.wait_for()


@pytest.mark.full
def test_stepper_and_text_of_the_first_screen_move_together(open_site: Any):
    with open_site() as page:
        page.locator(".live-view .ssd-word[data-step='4']").first.click()
        assert where(page).startswith("round 5 of ")


def test_the_page_with_every_view_of_the_run(open_site: Any):
    with open_site("assets/rounds/story.html") as page:
        for name in ("stepper", "text", "cache", "acceptance", "timeline"):
            assert page.locator(f"section.ssd-{name}").first.is_visible()


@pytest.mark.full
@pytest.mark.timeout(400)  # with their live views
@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize(("width", "one_of"), [(390, 12), (390, 1), (1280, 1)])
def test_every_page_fits_its_window_and_has_no_error(open_site: Any, site: Path, address: str, width: int, one_of: int):
    """In test-all every twelfth page, which come in folders of one kind."""
    paths = [path for path in sorted(site.rglob("*.html")) if "rounds" not in path.parts and path.stem != "404"]
    assert len(paths) > 30
    with open_site(width=width) as page:
        for path in paths[::one_of]:
            page.goto(address + path.relative_to(site).as_posix())
            assert no_sideways_scrolling(page), path.relative_to(site)


def test_widgets_of_a_notebook_are_alive_on_its_page_and_linked(
    open_site: Any, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A notebook that is really run; two views that share a selection move together without a kernel."""
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nfrom recorded_traces import recorded_trace\n"
                "from ssd_lab.widgets import CacheView, Selection, TreeStepper\n"
                "trace, shared = recorded_trace(rounds=12, seed=3), Selection()\n"
                "TreeStepper(trace, selection=shared)"
            ),
            nbformat.v4.new_code_cell("CacheView(trace, selection=shared)"),
        ]
    )
    source = tmp_path / "01_views.ipynb"
    nbformat.write(notebook, source)
    monkeypatch.setattr(executed, "KEPT", tmp_path / "kept")
    cells = notebook_pages.for_site(executed.execute(source)).cells
    shown = "".join(output.data["text/html"] for cell in cells for output in cell.outputs)
    body = f'<!doctype html><html lang="en"><link rel="icon" href="data:,"><body data-md-color-scheme="slate">{shown}'
    page_of_it = site / "assets" / "views_of_a_notebook.htm"  # no *.html: other tests look at all of those
    page_of_it.write_text(f'{body}<script src="live_views.js"></script></body></html>', encoding="utf-8")
    try:
        with open_site("assets/views_of_a_notebook.htm") as page:
            page.locator(".ssd-stepper [data-place]").first.wait_for()
            page.locator("[data-do=next]").first.click()
            assert [each.inner_text() for each in page.locator(".ssd-where").all()] == ["round 2 of 12"] * 2
            assert page.locator(".ssd-lab").first.get_attribute("data-theme") == "dark"
    finally:
        page_of_it.unlink()
