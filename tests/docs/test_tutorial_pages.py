"""Notebooks as pages: formulas drawn, links led to pages, plots and views alive without a kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the documentation's packages are not installed: pip install -e '.[docs]'")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "hooks"))

import formulas
import live_views
import nbformat
import notebook_pages
import parameters

FIGURE = {"data": [{"y": [1, 2], "name": "</script><b>"}], "layout": {"title": {"text": 'A "plot"'}}, "config": {}}


def page_of(*cells: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return notebook_pages.for_site(nbformat.v4.new_notebook(cells=list(cells))).cells


def code_with(*outputs: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return page_of(nbformat.v4.new_code_cell("x", outputs=list(outputs)))[0].outputs


def test_formulas_become_mathml_and_code_and_prices_do_not():
    text = formulas.replace_dollars("$p(x)$ and `$q$`, for 5$ or 6$; $$E = \\sum_i \\alpha^i$$\n```\n$z$\n```")
    assert text.count("<math ") == 2
    assert "`$q$`" in text and "```\n$z$\n```" in text and "5$ or 6$" in text


def test_links_to_notebooks_lead_to_pages():
    (cell,) = page_of(nbformat.v4.new_markdown_cell("[next](04_asynchronous.ipynb), [paper](https://arxiv.org/abs/1)"))
    assert cell.source == "[next](04_asynchronous.html), [paper](https://arxiv.org/abs/1)"


def test_a_plot_becomes_its_data_with_a_name():
    (output,) = code_with(nbformat.v4.new_output("display_data", {notebook_pages.PLOT: FIGURE, "text/plain": "Figure"}))
    markup = output.data["text/html"]
    assert list(output.data) == ["text/html"]
    assert 'aria-label="A &quot;plot&quot;"' in markup and "<figcaption>" in markup
    data = markup.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(data)["data"] == FIGURE["data"], "text in the data cannot end the script"


def test_progress_bars_and_widgets_of_a_kernel_are_left_out():
    outputs = code_with(
        nbformat.v4.new_output("stream", name="stderr", text="50%"),
        nbformat.v4.new_output("stream", name="stdout", text="kept"),
        nbformat.v4.new_output("display_data", {notebook_pages.WIDGET: {"model_id": "1"}, "text/html": "<p>view</p>"}),
        nbformat.v4.new_output("display_data", {notebook_pages.WIDGET: {"model_id": "2"}, "text/plain": "HBox(...)"}),
    )
    assert len(outputs) == 2 and outputs[0].text == "kept"
    assert dict(outputs[1].data) == {"text/html": "<p>view</p>"}


def test_a_views_state_stands_on_the_page_and_its_tables_until_it_is_drawn():
    state = {"kind": "views", "views": ["stepper"], "data": {"runs": ["</script><b>"]}, "_esm": "code", "link": "1"}
    output = nbformat.v4.new_output(
        "display_data", {notebook_pages.WIDGET: {"model_id": "7"}, "text/html": "<table></table>"}
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    notebook.metadata["widgets"] = {notebook_pages.WIDGET_STATES: {"state": {"7": {"state": state}}}}
    (cell,) = notebook_pages.for_site(notebook).cells
    markup = cell.outputs[0].data["text/html"]
    data = markup.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(data) == {name: state[name] for name in ("kind", "views", "data", "link")}
    assert markup.startswith('<div class="live-view" data-views="stepper">') and "<table></table></div>" in markup


def test_a_place_for_a_recorded_run_is_filled():
    html = live_views.on_page_content('<p>x</p><div class="live-view" data-trace="story" data-views="stepper"></div>')
    data = json.loads(html.split('<script type="application/json">')[1].split("</script>")[0])
    assert data["views"] == ["stepper"] and data["data"]["runs"][0]["name"] == "async_tree"
    assert "<noscript>" in html and "accepted" in html, "its tables stand there where no script draws"


def test_no_jupyter_script_or_copied_code_is_left(tmp_path: Path):
    """What comes before the notebook (themes, scripts from other servers) and hidden copies of the code go."""
    html = (
        '<script src="https://elsewhere/mathjax.js"></script><div class="jupyter-wrapper">'
        '<div class="highlight-ipynb"><pre>x = 1</pre></div>'
        '<div class="clipboard-copy-txt" id="cell-1">x = 1</div></div>'
    )

    class Page:
        file = type("File", (), {"src_uri": "tutorials/01_x.ipynb", "name": "01_x"})

    content = notebook_pages.on_page_content(html, Page())
    assert "elsewhere" not in content and content.count("x = 1") == 1 and 'class="highlight"' in content
    assert 'href="../assets/notebooks/01_x.ipynb"' in content


def test_parameters_in_running_text_become_a_list():
    listed = parameters.listed(
        "What it does. k: how many. f, g: both;\nin two lines. Raises ConfigError for less.", {"k", "f", "g"}
    )
    assert listed == (
        "What it does.\n\n- `k`: how many.\n- `f, g`: both; in two lines.\n\nRaises ConfigError for less."
    )
    shapes = parameters.listed("Args: p `[k]`, the target's; q, r `[k]`; others.", {"p", "q", "r"})
    assert shapes == "- `p` `[k]`, the target's\n- `q, r` `[k]`; others."
    assert parameters.listed("Note: no name.\nTwo lines.", {"k"}) == "Note: no name.\nTwo lines."
