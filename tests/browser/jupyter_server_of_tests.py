"""A JupyterLab of its own for the tests: own settings, own folders, a free port, one kernel for each notebook."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quick_imports import QUICK_IMPORTS

ROOT = Path(__file__).resolve().parents[2]
# news would be fetched, cells out of sight would not be drawn, and questions at the end would wait for an answer
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},  # as `ssd-lab notebooks` sets it
}
JUPYTERLAB = f"{QUICK_IMPORTS}; from jupyterlab.labapp import main; main()"
EMPTY_CELL = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}


@dataclass(frozen=True)
class JupyterServer:
    """Where it answers, and the folder it shows."""

    address: str
    folder: Path
    settings: Path

    def notebook(self, name: str, cells: Sequence[str]) -> str:
        """Write a notebook of code cells; returns the address of its page."""
        made = [
            {**EMPTY_CELL, "id": f"cell{i}", "source": source}
            for i, source in enumerate(cells)
        ]  # fmt: skip
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        content = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / f"{name}.ipynb").write_text(json.dumps(content), encoding="utf-8")
        return f"{self.address}/doc/tree/{name}.ipynb"

    def theme(self, theme: str) -> None:
        """Light or dark, for pages that are opened from now on."""
        write_settings(self.settings, "@jupyterlab/apputils-extension/themes", {"theme": f"JupyterLab {theme.title()}"})


@contextmanager
def jupyter_server(folder: Path) -> Iterator[JupyterServer]:
    """Start JupyterLab, wait until it answers, and end it with its kernels."""
    settings, work = folder / "settings", folder / "work"
    work.mkdir()
    for plugin, values in SETTINGS.items():
        write_settings(settings, plugin, values)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        **{f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")},
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable, "-c", JUPYTERLAB, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={work}", "--IdentityProvider.token=", "--expose-app-in-browser",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_it_answers(address, process, folder / "log")
            yield JupyterServer(address, work, settings)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def write_settings(folder: Path, plugin: str, values: dict[str, object]) -> None:
    """A user's settings of one of JupyterLab's plugins."""
    path = folder / f"{plugin}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 100
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
        else:
            return
    raise RuntimeError(f"JupyterLab did not start: {log.read_text(encoding='utf-8')[-2000:]}")
