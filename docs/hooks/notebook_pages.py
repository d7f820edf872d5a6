"""The tutorials on the site: notebooks with their results, in the site's own look, alive without a kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import executed
import formulas
import live_views
import nbformat
import plotly
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

PAGES = executed.ROOT / "build" / "pages"
FOLDER, DOWNLOADS = "tutorials", "assets/notebooks"
PLOT = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_STATES = "application/vnd.jupyter.widget-state+json"
_COPIERS = (
    re.compile(r'<div class="zeroclipboard-container">.*?</clipboard-copy>\s*</div>', re.DOTALL),
    re.compile(r'<div[^>]*class="clipboard-copy-txt"[^>]*>.*?</div>', re.DOTALL),
)
_LINK = re.compile(r"\]\((\d\d_\w+)\.ipynb(#[\w-]+)?\)")


@event_priority(100)  # before mkdocs-jupyter, which takes over the files that end in .ipynb
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks, and plotly's script, which is part of its Python package."""
    run = config.extra["execute_notebooks"]
    for path in executed.notebook_paths():
        notebook = executed.executed(path) if run else nbformat.read(path, as_version=4)
        page = PAGES / FOLDER / path.name
        page.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(for_site(notebook), page)
        files.append(File(f"{FOLDER}/{path.name}", str(PAGES), config.site_dir, config.use_directory_urls))
        files.append(File.generated(config, f"{DOWNLOADS}/{path.name}", abs_src_path=str(path)))
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    files.append(File.generated(config, "assets/plotly.min.js", abs_src_path=str(script)))
    return files


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Keep the notebook and leave out the Jupyter theme and the scripts from other servers that come before it."""
    if not page.file.src_uri.startswith(f"{FOLDER}/") or not page.file.src_uri.endswith(".ipynb"):
        return html
    body = html[html.index('<div class="jupyter-wrapper">') :]
    for copier in _COPIERS:  # the site has a button of its own for copying code
        body = copier.sub("", body)
    return _download(page) + body.replace("highlight-ipynb", "highlight")


def _download(page: Any) -> str:
    name = page.file.name
    return f'<p class="download"><a href="../{DOWNLOADS}/{name}.ipynb" download>This page as a notebook</a></p>'


def for_site(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with formulas drawn, links that lead to pages, and results that need no kernel."""
    states = notebook.metadata.pop("widgets", {}).get(WIDGET_STATES, {}).get("state", {})
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas.replace_dollars(_LINK.sub(r"](\1.html\2)", cell.source))
        else:
            cell.outputs = [shown for output in cell.outputs if (shown := _output(output, states)) is not None]
    return notebook


def _output(output: nbformat.NotebookNode, states: Mapping[str, Any]) -> nbformat.NotebookNode | None:
    if output.output_type == "stream" and output.name == "stderr":
        return None  # progress bars
    data = output.get("data", {})
    if PLOT in data:
        figure = json.dumps({key: data[PLOT][key] for key in ("data", "layout")}).replace("</", "<\\/")
        title = str(data[PLOT]["layout"].get("title", {}).get("text", "Plot")).replace("<br>", " ")
        title = escape(title, quote=True)
        markup = (
            f'<figure class="plotted"><figcaption>{title}</figcaption>'
            f'<div class="plot" role="img" aria-label="{title}">'
            f'<script type="application/json">{figure}</script></div></figure>'
        )
        output.data = nbformat.from_dict({"text/html": markup})
    elif WIDGET in data:
        state = states.get(data.pop(WIDGET)["model_id"], {}).get("state", {})
        if state.get("kind") in live_views.DRAWN:  # others have their own HTML beside them
            output.data = nbformat.from_dict({"text/html": live_views.live_view(state, data.get("text/html", ""))})
        elif "text/html" not in data:
            return None  # a progress bar, of which nothing is left but its name
    return output
