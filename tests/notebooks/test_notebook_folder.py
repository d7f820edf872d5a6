"""`ssd-lab notebooks`: copies for the reader, whose work is never lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ssd_lab.cli.main import app
from ssd_lab.errors import ConfigError
from ssd_lab.notebooks import copy_notebooks, lab, notebook_paths

ROOT = Path(__file__).resolve().parents[2]


def test_all_are_copied_then_left_alone(tmp_path: Path):
    first = copy_notebooks(tmp_path / "mine")
    assert [each.action for each in first] == ["copied"] * len(notebook_paths())
    assert [each.action for each in copy_notebooks(tmp_path / "mine")] == ["same"] * len(first)


def test_the_readers_work_is_kept(tmp_path: Path):
    mine = copy_notebooks(tmp_path)[1].path
    mine.write_text("my notes", encoding="utf-8")
    again = copy_notebooks(tmp_path)[1]
    assert again.action == "kept"
    assert mine.read_text(encoding="utf-8") == "my notes"


def test_overwriting_renames_the_readers_work_each_time(tmp_path: Path):
    mine = copy_notebooks(tmp_path)[1].path
    for number, notes in enumerate(("first notes", "second notes"), 1):
        mine.write_text(notes, encoding="utf-8")
        replaced = copy_notebooks(tmp_path, overwrite=True)[1]
        assert replaced.action == "replaced"
        assert replaced.backup == mine.with_name(f"{mine.stem}.before-{number}.ipynb")
        assert replaced.backup.read_text(encoding="utf-8") == notes
        assert mine.read_bytes() == notebook_paths()[1].read_bytes()


def test_a_file_in_the_way_is_told(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="another folder"):
        copy_notebooks(blocked)


def test_the_command_copies_and_says_so(tmp_path: Path):
    result = CliRunner().invoke(app, ["notebooks", "--to", str(tmp_path / "here"), "--no-open"])
    assert result.exit_code == 0
    assert "01_quick_start.ipynb" in result.stdout.replace("\n", "")
    listed = CliRunner().invoke(app, ["notebooks", "--to", str(tmp_path / "here"), "--json"])
    assert {each["action"] for each in json.loads(listed.stdout)} == {"same"}


def test_saved_notebooks_keep_their_views_unless_the_reader_has_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("jupyterlab")
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(tmp_path))
    written = lab.keep_views()
    assert written is not None and json.loads(written.read_text(encoding="utf-8")) == {"saveState": True}
    written.write_text('{"saveState": false}', encoding="utf-8")
    assert lab.keep_views() is None and "false" in written.read_text(encoding="utf-8")


def test_without_jupyterlab_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["notebooks", "--to", str(tmp_path)])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir()), "nothing was half done"


@pytest.mark.full
def test_a_wheel_built_from_a_source_package_holds_the_notebooks(tmp_path: Path):
    """As an index would build it: no checkout is at hand then. (Without the weights, which have their own rule.)"""
    checkout = tmp_path / "checkout"
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors", "files")
    for name in ("ssd_lab", "notebooks", "studies", "docs/results/h100", "docs/results/runs", "docs/traces/two_gpus"):
        shutil.copytree(ROOT / name, checkout / name, ignore=skip)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    _build("build_sdist", checkout, tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    _build("build_wheel", next((tmp_path / "unpacked").iterdir()), tmp_path)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for path in notebook_paths():
        assert f"ssd_lab/notebooks/files/{path.name}" in names
    results = ("h100.json", "runs/h100-async.json", "two_gpus/2_async_tree.jsonl.gz", "two_gpus/NOTICE")
    assert {f"ssd_lab/notebooks/files/{name}" for name in results} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ssd_lab"}, "studies stay in the checkout"


def _build(step: str, source: Path, to: Path) -> None:
    code = f"import sys; from setuptools import build_meta; build_meta.{step}(sys.argv[1])"
    command = [sys.executable, "-c", code, str(to)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
