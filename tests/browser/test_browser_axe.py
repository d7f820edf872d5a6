"""axe finds nothing on the site's main pages and in the views, light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser_pages import THEMES
from recorded_traces import recorded_trace

from ssd_lab.widgets.page import write_html

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="SKIPPED ALOUD: axe is not installed")
from test_browser_pictures import address as pictures  # noqa: E402, F401 (a fixture)
from test_browser_site import address, open_site, site  # noqa: E402, F401 (fixtures)

pytestmark = pytest.mark.browser
PAGES = (
    "index.html",
    "try-it.html",
    "views.html",
    "comparison.html",
    "concepts/speculative-decoding.html",
    "concepts/eagle3.html",
    "strategies/eagle3.html",
    "tutorials/02_from_scratch.html",
    "reference/views.html",
    "assets/rounds/tree.html",
)


def findings(page: Any) -> list[str]:
    """What axe objects to: the rule, and the first element of each."""
    page.emulate_media(reduced_motion="reduce")  # what still fades in would be too pale
    page.wait_for_timeout(300)
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary']}" for one in found]


LOOKS = [("light", 1280), ("dark", 1280), ("dark", 390), ("light", 390)]


@pytest.mark.full
@pytest.mark.grid(full=3, most=2)  # one narrow and light, one wide and dark
@pytest.mark.parametrize(
    ("path", "theme", "width"),
    [(PAGES[0], *LOOKS[3]), *((path, *LOOKS[place % 4]) for place, path in enumerate(PAGES))],
)
def test_the_sites_pages(open_site: Any, path: str, theme: str, width: int):  # noqa: F811
    """The home page in two looks, the others in turn in one of four: they share their style."""
    with open_site(path, theme=theme, width=width) as page:
        assert findings(page) == []


@pytest.mark.quick(THEMES[0])
@pytest.mark.parametrize("theme", THEMES)
def test_all_views_of_a_run(open_page: Any, tmp_path: Path, theme: str):
    trace = recorded_trace(rounds=12, requests=2, seed=3, saguaro_c=0.6)
    with open_page(write_html(trace, tmp_path / "views.html").as_uri(), theme=theme) as page:
        page.locator("summary", has_text="What if").click()
        page.locator("summary", has_text="The whole tree").click()
        assert findings(page) == []


@pytest.mark.full
@pytest.mark.parametrize("theme", THEMES)
def test_what_is_moved_by_hand(open_page: Any, pictures: str, theme: str):  # noqa: F811
    with open_page(pictures, theme=theme, width=390) as page:
        assert findings(page) == []
