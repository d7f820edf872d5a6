"""Views of recorded rounds on the site's pages: the widgets' own front end, fed from the page, without a kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import executed
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ssd_lab.trace import Trace, load_trace
from ssd_lab.trace.named import strategy_name
from ssd_lab.widgets.bundle import bundle, style
from ssd_lab.widgets.page import html_page, script_json
from ssd_lab.widgets.static_html import tables
from ssd_lab.widgets.view_model import view_data

TRACES = executed.ROOT / "docs" / "traces"
SHOWN = (
    "kind",
    "views",
    "data",
    "selection",
    "link",
    "summary",
    "clock",
    "settings",
    "simulated",
    "picture",
    "frame",
    "points",
    "place",
    "words",
    "target",
    "draft",
    "fan_out",
    "factor",
    "parents",
    "chosen",
)
DRAWN = ("views", "speed", "map", "overlap", "shape")  # a playground is nothing without a kernel
_PLACE = re.compile(r'<div class="live-view" data-trace="(\w+)" data-views="([\w ]+)"></div>')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the front end, and for each recorded trace a page that shows all views of it."""
    script = bundle("widget", "globalThis.ssdLabWidgets = in_widget;")  # no module: those do not load from a file
    files.append(File.generated(config, "assets/front_end.js", content=script))
    files.append(File.generated(config, "assets/front_end.css", content=style()))
    for name in _names():
        page = html_page(recorded(name), title="A recorded run, round by round")
        files.append(File.generated(config, f"assets/rounds/{name}.html", content=page))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Fill the places that name a recorded trace and the views of it."""
    return _PLACE.sub(lambda match: view_of(recorded(match[1]), match[2].split()), html)


def _names() -> list[str]:
    return sorted(path.name.split(".")[0] for path in TRACES.iterdir() if path.is_dir() or path.suffix == ".gz")


def recorded(name: str) -> dict[str, Trace]:
    """What comes with the documentation under this name, by strategy: a trace, or a folder of them in their order."""
    folder = TRACES / name
    paths = sorted(folder.glob("*.jsonl.gz")) if folder.is_dir() else [TRACES / f"{name}.jsonl.gz"]
    return {strategy_name(trace): trace for trace in map(load_trace, paths)}


def view_of(traces: Mapping[str, Trace], views: Sequence[str]) -> str:
    """Views of traces as a part of a page."""
    data = view_data(traces)
    state = {
        "kind": "views",
        "views": list(views),
        "data": data,
        "selection": {},
        "link": "",
        "summary": "",
        "clock": "measured",
    }
    stills = "".join(table.to_html() for table in tables(data, views, data["opening"]))
    return live_view(state, f"<noscript>{stills}</noscript>")


def live_view(state: Mapping[str, Any], instead: str) -> str:
    """A widget's state as a part of a page. instead: what is there until a script draws it, or if none does."""
    shown = script_json({name: state[name] for name in SHOWN if name in state})
    views = " ".join(state.get("views", ()))
    data = f'<script type="application/json">{shown}</script>'
    return f'<div class="live-view" data-views="{views}">{data}{instead}</div>'
