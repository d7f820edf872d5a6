"""A real browser: Debian's chromium, driven through Playwright; one for all tests, and one page for all of them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests of this folder share modules
from jupyter_server_of_tests import JupyterServer, jupyter_server

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW = ("ms to activate.", "too long to activate.")  # JupyterLab's words about its own parts on a busy machine
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; where it is missing the tests are skipped, and say so."""
    playwright = pytest.importorskip("playwright.sync_api", reason="SKIPPED ALOUD: playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("SKIPPED ALOUD: no chromium here; apt-get install chromium")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


class KeptPage:
    """A page in a profile of its own, which costs the processor a second: it is used again while all goes well."""

    def __init__(self, browser: Any) -> None:
        self._browser, self._page = browser, None

    def taken(self) -> Any:
        """The one that was given back, or a new one."""
        page, self._page = self._page, None
        if page is None:
            context = self._browser.new_context()
            context.set_default_timeout(60_000)  # machines that run these tests may be busy
            page = context.new_page()
        return page

    def give_back(self, page: Any) -> None:
        """Empty, with nothing stored."""
        page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
        page.goto("about:blank")
        self._page = page


@pytest.fixture(scope="session")
def kept_page(browser: Any) -> KeptPage:
    """For all tests of this process."""
    return KeptPage(browser)


@pytest.fixture
def open_page(kept_page: KeptPage) -> Open:
    """`with open_page(address, width=, theme=) as page`: the page must end without an error, a warning or a request to
    another place than `address`. used_up: nobody gets it afterwards.
    """

    @contextmanager
    def opened(
        address: str,
        *,
        width: int = 1280,
        height: int = 900,
        theme: str = "light",
        allowed: tuple[str, ...] = (),
        used_up: bool = False,
    ) -> Iterator[Any]:
        page = kept_page.taken()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=theme, reduced_motion="no-preference")
        problems: list[str] = []
        home = address.split("?")[0].rsplit("/", 1)[0]

        def note_message(message: Any) -> None:
            if message.type in ("error", "warning") and not message.text.endswith(SLOW):
                problems.append(message.text)

        def note_request(request: Any) -> None:
            if not request.url.startswith((home, "data:", "blob:", *allowed)):
                problems.append(request.url)

        watching = {
            "console": note_message,
            "pageerror": lambda error: problems.append(str(error)),
            "request": note_request,
        }
        for event, note in watching.items():
            page.on(event, note)
        try:
            page.goto(address)
            yield page
        except BaseException:
            used_up = True
            raise
        finally:
            for event, note in watching.items():
                page.remove_listener(event, note)
            if used_up:
                page.context.close()
            else:
                kept_page.give_back(page)
        assert not problems, problems[:5]

    return opened


@pytest.fixture
def keep_picture(request: pytest.FixtureRequest) -> Callable[[Any, str], None]:
    """Leave a picture of a page or an element where `--screenshots` says; without it, make none."""
    folder = request.config.getoption("--screenshots")

    def keep(shown: Any, name: str) -> None:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            whole = {"full_page": True} if hasattr(shown, "goto") else {}  # a page; else one element of it
            shown.screenshot(path=str(Path(folder) / f"{name}.png"), **whole)

    return keep


@pytest.fixture
def keep_figure(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Print a measured figure (`pytest -rP` shows it), and add it to figures.jsonl beside the pictures."""
    folder = request.config.getoption("--screenshots")

    def keep(name: str, value: float) -> None:
        print(f"{name}: {value:.1f}")  # noqa: T201
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with (Path(folder) / "figures.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"figure": name, "value": round(value, 1)}) + "\n")

    return keep


@pytest.fixture(scope="session")
def jupyter(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """JupyterLab 4 with a kernel, one for all tests."""
    pytest.importorskip("jupyterlab", reason="SKIPPED ALOUD: JupyterLab is not installed")
    with jupyter_server(tmp_path_factory.mktemp("jupyter")) as server:
        yield server
