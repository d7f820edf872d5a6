"""One self-contained HTML file for a trace, or for several side by side: no network, no kernel, no package."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ssd_lab.common.places import write_text
from ssd_lab.trace import Trace
from ssd_lab.trace.token_texts import Decode
from ssd_lab.widgets.bundle import page_script, style
from ssd_lab.widgets.static_html import summary_html
from ssd_lab.widgets.view_model import view_data

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; background: light-dark(#fff, #14181d); color: light-dark(#1c2126, #e6edf3); }}
body {{ font-family: system-ui, sans-serif; }}
main {{ max-width: 80rem; margin: 0 auto; padding: .8rem; box-sizing: border-box; }}
h1 {{ font-size: 1.25rem; margin: .2rem 0 .6rem; overflow-wrap: anywhere; }}
#summary {{ overflow-x: auto; }}
@media (max-width: 40rem) {{ #summary {{ font-size: .8rem; }} }}
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<div id="summary">{summary}</div>
<div id="views"><noscript>The views need JavaScript; the table above does not.</noscript></div>
</main>
<script type="application/json" id="data">{data}</script>
<script type="module">
{script}
const data = JSON.parse(document.getElementById("data").textContent);
ssdLab.view = ssdLab.mount(document.getElementById("views"), {{ data }});
</script>
</body>
</html>
"""


def html_page(traces: Trace | Mapping[str, Trace], *, title: str | None = None, decode: Decode | None = None) -> str:
    """The page's text. traces: one, or several by the name each is shown with. decode: see `view_data`."""
    data = view_data(traces, decode=decode)
    names = " and ".join(run["name"] for run in data["runs"])
    return _PAGE.format(
        title=html.escape(title or f"Rounds of {names}"),
        style=style(),
        summary=summary_html(data),
        data=script_json(data),
        script=page_script(),
    )


def write_html(
    traces: Trace | Mapping[str, Trace],
    path: str | PathLike[str],
    *,
    title: str | None = None,
    decode: Decode | None = None,
) -> Path:
    """Write `html_page` to a file and return its path."""
    write_text(path, html_page(traces, title=title, decode=decode))
    return Path(path)


def script_json(data: Mapping[str, Any]) -> str:
    """JSON that stands in a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
