"""Notebooks as files: clean in git, short cells, a question first, exercises last."""

from __future__ import annotations

import ast
import importlib
import json
import re
import statistics
from pathlib import Path

import pytest

from ssd_lab.notebooks import charts, notebook_paths
from ssd_lab.notebooks.exercises import EXERCISES

PATHS = notebook_paths()


def cells(path: Path, kind: str) -> list[str]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_clean_of_results(path: Path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_its_question_and_asks_for_predictions(path: Path):
    prose = cells(path, "markdown")
    assert re.match(rf"# {int(path.stem[:2])}\. ", prose[0])
    assert re.search(r"\*\*The question: .+\?\*\*", prose[0], re.DOTALL)
    whole = "\n".join(prose)
    assert "**Predict" in whole and "surprise you" in whole and "## Exercises" in whole


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_cells_are_short(path: Path):
    lengths = [len([line for line in code.splitlines() if line.strip()]) for code in cells(path, "code")]
    assert statistics.median(lengths) <= 5
    assert max(lengths) <= 30


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_asks_every_exercise_of_its_own_and_no_other(path: Path):
    asked = re.findall(r'check\("(\d\d-\d)"', "\n".join(cells(path, "code")))
    assert asked == [name for name in EXERCISES if name.startswith(path.stem[:2])]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path: Path):
    lines = [line for code in cells(path, "code") for line in code.splitlines() if not line.startswith(("%", "!"))]
    imports = [node for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.ImportFrom)]
    for module, name in ((node.module, alias.name) for node in imports for alias in node.names):
        if module.split(".")[0] == "ssd_lab" and not hasattr(importlib.import_module(module), name):
            importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_links_between_notebooks_lead_to_notebooks(path: Path):
    names = {other.name for other in PATHS}
    linked = re.findall(r"\]\((?!https://)([^)]+)\)", "\n".join(cells(path, "markdown")))
    assert set(linked) <= names


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_words_explained_on_hover_are_the_glossarys(path: Path):
    glossary = Path(__file__).resolve().parents[2] / "docs" / "includes" / "glossary.md"
    meanings = dict(re.findall(r"^\*\[(.+?)\]: (.+)$", glossary.read_text(encoding="utf-8"), re.MULTILINE))
    explained = re.findall(r'<abbr title="(.+?)">(.+?)</abbr>', "\n".join(cells(path, "markdown")))
    assert explained == [(meanings[word], word) for _, word in explained]
    if path.stem[:2] in ("01", "02", "03", "04", "05", "06"):
        assert explained, "the first notebooks explain their words"


def test_a_kind_of_decoding_has_one_colour_in_all_charts_and_views():
    pytest.importorskip("plotly")
    bars = charts.bars({"synchronous": [1], "asynchronous": [2], "alone": [3]}, ["a"], x="x", y="y", title="t")
    lines = charts.lines({"async, jit": ([1], [1]), "async, fast": ([1], [2])}, x="x", y="y", title="t")
    style = (Path(charts.__file__).parents[1] / "widgets" / "static" / "style.css").read_text(encoding="utf-8")
    draft, tree = (re.search(rf"--{name}: (#\w+)", style)[1].upper() for name in ("draft", "tree"))  # type: ignore[index]
    assert [bar.marker.color for bar in bars.data][:2] == [draft, tree]
    colours = [line.line.color for line in lines.data]
    assert colours[0] == tree and len(set(colours)) == 2
