"""`ssd-lab explain`: why recorded runs were as fast as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json


def command(
    traces: Annotated[
        list[Path],
        typer.Argument(help="Traces of `run --trace`; give an autoregressive one too, and there is something to beat."),
    ],
    hardware: Annotated[
        str | None,
        typer.Option("--hardware", help="Price the rounds on this machine: a published profile's name or a .json."),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Explain each speculative trace."""
    from ssd_lab.explain import explain
    from ssd_lab.trace import load_trace

    loaded = [load_trace(path) for path in traces]
    explanation = explain(loaded, hardware)
    if json_:
        print_json(explanation.as_dict())
    else:
        console().print(explanation)
