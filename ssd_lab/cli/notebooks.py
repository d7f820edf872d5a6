"""`ssd-lab notebooks`: the tutorials in a folder of the reader's, opened in JupyterLab."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json
from ssd_lab.errors import ConfigError

_SAID = {
    "copied": "copied",
    "same": "there already",
    "kept": "kept yours, which differs (--overwrite takes the new one and keeps yours beside it)",
    "replaced": "replaced",
}


def command(
    to: Annotated[Path, typer.Option("--to", help="Folder to copy to.")] = Path("ssd_lab_notebooks"),
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open JupyterLab there.")] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace notebooks that differ; yours are renamed, not lost.")
    ] = False,
    keep_views: Annotated[
        bool,
        typer.Option("--keep-views/--no-keep-views", help="Let JupyterLab save views with a notebook (its setting)."),
    ] = True,
    json_: options.Json = False,
) -> None:
    """Copy, say what was done, open."""
    from ssd_lab.notebooks import copy_notebooks, lab

    opens = open_ and not json_
    if opens and importlib.util.find_spec("jupyterlab") is None:
        missing = (
            "JupyterLab is not installed: in the checkout, pip install -e '.[notebook]' brings it; or give --no-open"
        )
        raise ConfigError(missing)
    copied = copy_notebooks(to, overwrite=overwrite)
    if json_:
        print_json([{"path": str(c.path), "action": c.action, "backup": c.backup and str(c.backup)} for c in copied])
        return
    out = console()
    for each in copied:
        beside = f", yours is now {each.backup.name}" if each.backup else ""
        out.print(f"{each.path}: {_SAID[each.action]}{beside}", markup=False, highlight=False)
    if not opens:
        out.print(f"Open them with: jupyter lab --notebook-dir={copied[0].path.parent}", markup=False, highlight=False)
    else:
        if keep_views and (written := lab.keep_views()) is not None:
            out.print(f"Saved notebooks keep their views: set in {written}", markup=False, highlight=False)
        out.print("Ctrl-C here ends JupyterLab.", markup=False)
        first = copied[0].path
        program = [sys.executable, "-P", "-m", "jupyterlab", f"--notebook-dir={first.parent}", first.name]
        raise typer.Exit(_run_to_end(program))


def _run_to_end(command_line: list[str]) -> int:
    """The program's exit code; Ctrl-C is its own to answer (JupyterLab asks whether it shall end)."""
    process = subprocess.Popen(command_line)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
