"""The standalone file and the front end's bundle, as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from recorded_traces import recorded_trace
from typer.testing import CliRunner

from ssd_lab.cli.main import app
from ssd_lab.widgets import bundle
from ssd_lab.widgets.page import html_page
from ssd_lab.widgets.view_model import view_data

TRACE = recorded_trace(rounds=5, seed=3)


def test_the_page_holds_the_data_and_names_no_other_place():
    page = html_page(TRACE, title="<i>mine</i>")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data) == json.loads(json.dumps(view_data(TRACE)))
    assert "<i>mine</i>" not in page and "&lt;i&gt;mine" in page
    places = set(re.findall(r"https?://[^\s\"'`<>)]+", page)) - {"http://www.w3.org/2000/svg"}
    assert places == set()


def test_text_in_a_trace_cannot_end_the_script_element():
    page = html_page(TRACE)
    assert "prompt 0 </script>" not in page and page.count("</script>") == 2


def test_the_bundle_has_every_file_once_and_nothing_left_to_import():
    for text in (bundle.widget_module(), bundle.page_script()):
        assert not re.search(r"^\s*import ", text, re.MULTILINE)
        assert text.count("const in_dom =") == 1
    assert re.search(r"^export default", bundle.widget_module(), re.MULTILINE)
    used = set(bundle._in_order("widget")) | set(bundle._in_order("page"))
    assert used == {path.stem for path in bundle.STATIC.glob("*.js")}


def test_a_form_of_import_that_would_be_lost_is_refused(tmp_path: Path):
    (tmp_path / "a.js").write_text('import all from "./b.js";\n')
    with pytest.raises(ValueError, match=r"a\.js"):
        bundle.bundle("a", "", tmp_path)
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\n')
    (tmp_path / "b.js").write_text('import { a } from "./a.js";\n')
    with pytest.raises(ValueError, match="circle"):
        bundle.bundle("a", "", tmp_path)


def test_the_command_writes_a_page_beside_the_trace(tmp_path: Path):
    TRACE.save(tmp_path / "one.jsonl.gz")
    done = CliRunner().invoke(app, ["view", str(tmp_path / "one.jsonl.gz"), str(tmp_path / "one.jsonl.gz"), "--json"])
    said = json.loads(done.stdout)
    assert done.exit_code == 0 and Path(said["page"]) == tmp_path / "one.html"
    assert said["rounds"] == {"async_tree": 5, "async_tree (one.jsonl.gz)": 5}


def test_the_command_says_what_is_wrong(tmp_path: Path):
    done = CliRunner().invoke(app, ["view", str(tmp_path / "nothing.jsonl")])
    assert done.exit_code == 2 and "does not exist" in done.stderr
    TRACE.save(tmp_path / "one.jsonl")
    done = CliRunner().invoke(app, ["view", str(tmp_path / "one.jsonl"), "--out", str(tmp_path / "no" / "x.html")])
    assert done.exit_code == 2 and "--out" in done.stderr
