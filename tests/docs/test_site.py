"""The built site: strict; links and anchors lead somewhere; every public name is there; nothing is from outside."""

from __future__ import annotations

import fcntl
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from quick_imports import QUICK_IMPORTS

import ssd_lab

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install -e '.[docs]'")

ROOT = Path(__file__).resolve().parents[2]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "audio": "src", "video": "src"}
MKDOCS = f"{QUICK_IMPORTS}; from mkdocs.__main__ import cli; cli()"
LOADING_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "manifest", "preconnect"}


class Page(HTMLParser):
    """What a page links to, loads and offers as anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.unnamed: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "name" in given:
            self.anchors.add(given["name"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADING and LOADING[tag] in given:
            self.loads.append(given[LOADING[tag]])
        if tag == "link" and set(given.get("rel", "").split()) & LOADING_RELATIONS:
            self.loads.append(given.get("href", ""))
        if (tag == "img" and not given.get("alt")) or (tag == "iframe" and not given.get("title")):
            self.unnamed.append(given.get("src", tag))


def build(folder: Path, *, project: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A strict build without executing the notebooks (tests/notebooks does that).

    Not with --quiet: a warning that is not logged does not fail a strict build.
    """
    environment = {**os.environ, "EXECUTE_NOTEBOOKS": "false", "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MKDOCS, "build", "--strict", "--site-dir", str(folder)]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def built_once(config: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, which the workers of a run share: building it takes the better part of a minute. With `--site` that of
    `make docs`.
    """
    if (made := config.getoption("--site")) is not None:
        return Path(made).resolve()
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / "the-site"
    with (shared / "the-site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "the-site.built").exists():
            done = build(folder)
            assert done.returncode == 0, done.stderr[-3000:]
            (shared / "the-site.built").touch()
    return folder


@pytest.fixture(scope="module")
def site(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_once(pytestconfig, tmp_path_factory)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def _resolved(page: Page, link: str, site: Path) -> tuple[Path, str]:
    address, anchor = urldefrag(link)
    path = (page.path.parent / unquote(address)).resolve() if address else page.path
    return (path / "index.html" if path.is_dir() else path), unquote(anchor)


@pytest.mark.full
def test_every_internal_link_and_anchor_leads_somewhere(site: Path, pages: dict[Path, Page]):
    dead: dict[str, list[str]] = defaultdict(list)
    checked = 0
    for page in pages.values():
        if page.path.name == "404.html":  # its links are absolute: it may be shown at any address
            continue
        for link in page.links:
            if urlparse(link).scheme in ("http", "https", "mailto"):
                continue
            path, anchor = _resolved(page, link, site)
            checked += 1
            if not path.exists() or (anchor and path.suffix == ".html" and anchor not in pages[path].anchors):
                dead[str(page.path.relative_to(site))].append(link)
    assert not dead, dict(dead)
    assert checked > 500


def test_the_site_loads_nothing_from_outside(site: Path, pages: dict[Path, Page]):
    outside = {
        str(page.path.relative_to(site)): [load for load in page.loads if re.match(r"(https?:)?//", load)]
        for page in pages.values()
    }
    assert not {name: loads for name, loads in outside.items() if loads}
    for sheet in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]+", sheet.read_text(encoding="utf-8"))
        assert not found, (sheet.name, found)
    for page in pages.values():  # what Material would fetch from elsewhere for a diagram
        assert 'class="mermaid"' not in page.path.read_text(encoding="utf-8"), page.path


def test_what_a_page_loads_is_there(site: Path, pages: dict[Path, Page]):
    missing = [
        (str(page.path.relative_to(site)), load)
        for page in pages.values()
        if page.path.name != "404.html"
        for load in page.loads
        if load and not load.startswith("data:") and not _resolved(page, load, site)[0].exists()
    ]
    assert not missing


def test_pictures_and_frames_have_names(pages: dict[Path, Page]):
    assert not {page.path: page.unnamed for page in pages.values() if page.unnamed}


def test_every_formula_was_drawn(site: Path, pages: dict[Path, Page]):
    """No TeX is left, and the pages that have formulas have MathML."""
    drawn = 0
    for page in pages.values():
        text = page.path.read_text(encoding="utf-8")
        assert "arithmatex" not in text, page.path
        assert not re.search(r"\$\$|\\frac|\\sum", re.sub(r"<annotation.*?</annotation>", "", text)), page.path
        drawn += text.count("<math ")
    assert drawn > 100


def _public_names() -> Iterator[str]:
    for name in ssd_lab.__all__:
        found = getattr(ssd_lab, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            yield f"{found.__module__}.{found.__qualname__}"
    for module in ("check", "errors", "explain", "notebooks", "simulate", "strategies", "trace", "tune", "widgets"):
        home = importlib.import_module(f"ssd_lab.{module}")
        for name in getattr(home, "__all__", [n for n in vars(home) if not n.startswith("_")]):
            found = getattr(home, name)
            if (inspect.isclass(found) or inspect.isfunction(found)) and found.__module__.startswith("ssd_lab"):
                yield f"{found.__module__}.{found.__qualname__}"
    for strategy in ssd_lab.strategies().values():
        if strategy.__module__.startswith("ssd_lab.strategies"):
            yield f"{strategy.__module__}.{strategy.__qualname__}"


def test_every_public_name_is_in_the_reference(site: Path, pages: dict[Path, Page]):
    known = set().union(*(page.anchors for path, page in pages.items() if "reference" in path.parts))
    names = set(_public_names())
    assert names
    assert not sorted(names - known)


LINKS = {"[gone](nowhere.md)": "nowhere.md", "[gone](index.md#no_place)": "#no_place"}
NAME = {"::: ssd_lab.no_such_name": "no_such"}  # which ends a build at once


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's own configuration, for pages of our own."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    settings = re.sub(r"(?ms)^nav:.*", "", settings)
    settings = re.sub(r"(?m)^hooks:.*$", "", settings).replace('paths: ["."]', f'paths: ["{ROOT}"]')
    settings = settings.replace("docs/hooks/", f"{ROOT}/docs/hooks/")
    settings = re.sub(r", auto_append: \[[^]]*\]", "", settings)
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    (tmp_path / "ssd_lab").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "docs" / "assets").mkdir(parents=True)
    return tmp_path


@pytest.mark.full
@pytest.mark.grid(most=2)
@pytest.mark.parametrize("planted", [LINKS, NAME], ids=["links", "name"])
def test_wrong_links_and_names_fail_the_build(project: Path, planted: dict[str, str]):
    """Strict means strict: with bad lines it does not build, and names each."""
    (project / "docs" / "index.md").write_text("# Start\n\n" + "\n\n".join(planted), encoding="utf-8")
    done = build(project / "site", project=project)
    assert done.returncode != 0
    assert all(named in done.stdout + done.stderr for named in planted.values())
