"""Notebooks run from top to bottom, kept in build/notebooks until they or the package change."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "notebooks"
KEPT = ROOT / "build" / "notebooks"
LIMIT_S = 600


def notebook_paths() -> list[Path]:
    """The tutorials in their order."""
    return sorted(SOURCES.glob("[0-9][0-9]_*.ipynb"))


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with results: kept ones if nothing changed since, else from a new run."""
    kept = _kept_path(path)
    return nbformat.read(kept, as_version=4) if kept.exists() else execute(path)


def execute(path: Path) -> nbformat.NotebookNode:
    """Run one notebook in a fresh kernel and an empty folder, one thread, and keep what came out.

    Raises nbclient.exceptions.CellExecutionError where a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PLOTLY_RENDERER": "plotly_mimetype",
        "PYTHONPATH": str(ROOT),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the kernel's debugger has advice for people who debug
    }
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            timeout=LIMIT_S,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
        )
        client.execute(env=environment)
    kept = _kept_path(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    for old in kept.parent.glob(f"{path.stem}.*.ipynb"):
        old.unlink()
    nbformat.write(notebook, kept)
    return notebook


def _kept_path(path: Path) -> Path:
    digest = hashlib.sha256(path.read_bytes())
    for source in _package_files():
        digest.update(str(source.relative_to(ROOT)).encode() + source.read_bytes())
    return KEPT / f"{path.stem}.{digest.hexdigest()[:16]}.ipynb"


def _package_files() -> Iterator[Path]:
    yield from sorted(path for path in (ROOT / "ssd_lab").rglob("*") if path.suffix in {".py", ".js", ".css", ".json"})
