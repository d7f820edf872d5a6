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
from test_site import build

from ssd_lab.trace import load_trace

TESTS = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without results of notebooks: those of this folder need only the pages' own parts."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


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


def where(page: Any) -> str:
    return page.locator(".live-view .ssd-where").first.inner_text()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_screen_is_a_run_to_step_through(open_site: Any, keep_picture: Any, width: int, theme: str):
    rounds = len(load_trace(live_views.TRACES / "async_tree.jsonl.gz").rounds)
    with open_site(width=width, theme=theme) as page:
        page.locator(".live-view .ssd-tree .ssd-node").first.wait_for()
        for do in ("back", "play", "next"):
            box = page.locator(f".live-view [data-do={do}]").bounding_box()
            assert box["y"] + box["height"] < 900, "below the first screen"
        assert page.locator(".live-view .ssd-tree .ssd-node").first.bounding_box()["y"] < 900
        assert page.locator(".live-view .ssd-lab").get_attribute("data-theme") == theme
        assert no_sideways_scrolling(page)
        of = where(page).split(" of ")[1]
        assert 1 < int(of) <= rounds
        page.locator(".live-view [data-do=next]").click()
        assert where(page) == f"round 2 of {of}"
        page.keyboard.press("ArrowRight")
        assert where(page) == f"round 3 of {of}"
        page.keyboard.press("Home")
        assert where(page) == f"round 1 of {of}"
        keep_picture(page, f"site-home-{width}-{theme}")


def test_the_views_follow_the_sites_own_switch_of_colours(open_site: Any):
    with open_site(theme="light") as page:
        view = page.locator(".live-view .ssd-lab")
        assert view.get_attribute("data-theme") == "light"
        page.locator("label[for=__palette_1]").first.click()
        page.locator(".live-view .ssd-lab[data-theme=dark]").wait_for()


def test_stepper_and_text_of_the_first_screen_move_together(open_site: Any):
    with open_site() as page:
        page.locator(".live-view .ssd-word[data-step='4']").first.click()
        assert where(page).startswith("round 5 of ")


def test_the_page_with_every_view_of_the_run(open_site: Any):
    with open_site("assets/rounds/async_tree.html") as page:
        for name in ("stepper", "text", "cache", "acceptance", "timeline"):
            assert page.locator(f"section.ssd-{name}").first.is_visible()


@pytest.mark.parametrize("width", [390, pytest.param(1280, marks=pytest.mark.full)])
def test_every_page_fits_its_window_and_has_no_error(open_site: Any, site: Path, address: str, width: int):
    paths = [path for path in sorted(site.rglob("index.html")) if "rounds" not in path.parts]
    assert len(paths) > 30
    with open_site(width=width) as page:
        for path in paths:
            page.goto(address + path.parent.relative_to(site).as_posix())
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
    page_of_it = site / "assets" / "views_of_a_notebook.html"
    page_of_it.write_text(f'{body}<script src="live_views.js"></script></body></html>', encoding="utf-8")
    with open_site("assets/views_of_a_notebook.html") as page:
        page.locator(".ssd-stepper [data-place]").first.wait_for()
        page.locator("[data-do=next]").first.click()
        assert [each.inner_text() for each in page.locator(".ssd-where").all()] == ["round 2 of 12"] * 2
        assert page.locator(".ssd-lab").first.get_attribute("data-theme") == "dark"
