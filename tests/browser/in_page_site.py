"""The model in the page, served by itself: the files that the site's hook makes, on one page, without the site."""

from __future__ import annotations

import functools
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))

import in_page  # noqa: E402 (of the documentation)

from ssd_lab.widgets.bundle import bundle, style  # noqa: E402

TESTING = Path(__file__).parent / "in_page_testing.js"


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing about requests."""

    def log_message(self, *_: Any) -> None:
        return


def write_page(folder: Path) -> None:
    """`index.html` with the button, and `testing.js` beside its scripts."""
    made: dict[str, Any] = {f"{in_page.FOLDER}/{name}": content for name, content in in_page.made().items()}
    made["assets/front_end.js"] = bundle("widget", "globalThis.ssdLabWidgets = in_widget;")
    made["assets/front_end.css"] = style()
    made["assets/try_it.js"] = in_page.executed.ROOT / "docs" / "assets" / "try_it.js"
    made["testing.js"] = modules_for_tests(folder / "sources", {})
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">'
    made["index.html"] = f'{head}<body>{in_page.part_of_page()}<script src="testing.js"></script></body></html>'
    for path, content in made.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, place)
        else:
            place.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def modules_for_tests(folder: Path, faults: Mapping[str, tuple[str, str]], name: str = "ssdLabTesting") -> str:
    """The page's modules with testing.js, as `globalThis[name]`. faults: by file, what is put in the place of what."""
    shutil.copytree(in_page.SOURCES / "js", folder)
    shutil.copyfile(TESTING, folder / "testing.js")
    for file, (right, wrong) in faults.items():
        source = (folder / file).read_text(encoding="utf-8")
        assert source.count(right) == 1, f"{file} does not hold {right!r} once"
        (folder / file).write_text(source.replace(right, wrong), encoding="utf-8")
    return in_page.script("testing", f"globalThis.{name} = in_testing;", folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of the folder."""
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
