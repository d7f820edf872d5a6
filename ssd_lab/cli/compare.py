"""`ssd-lab compare`: several strategies on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.options import CHAT, ENGINE, FIELDS, KNOBS, MODELS, PROMPTS, SAMPLING, SEED
from ssd_lab.cli.output import INTERRUPTED, console, interrupted, print_json, show_progress
from ssd_lab.common.parsing import parse_strategy

DEFAULT = ("autoregressive", "sync_chain", "async_tree")


@options.takes(PROMPTS, KNOBS, FIELDS, MODELS, CHAT, SAMPLING, SEED, ENGINE)
def command(
    fields: dict[str, Any],
    strategies: options.Strategies = None,
    warm_up: options.WarmUp = True,
    timeline: Annotated[
        Path | None, typer.Option("--timeline", help="Draw the rounds of all runs into this SVG.")
    ] = None,
    json_: options.Json = False,
) -> None:
    """Compare and print one table."""
    chosen = [parse_strategy(text) for text in strategies or DEFAULT]

    import ssd_lab

    comparison = ssd_lab.compare(strategies=chosen, progress=show_progress(), warm_up=warm_up, **fields)
    if timeline is not None:
        from ssd_lab.display.timeline import timeline_svg

        traces = {name: run.trace for name, run in comparison.runs.items()}
        timeline.write_text(timeline_svg(traces), encoding="utf-8")
    if json_:
        print_json(comparison.as_dict())
    else:
        console().print(comparison)
    if any(interrupted(run.outputs) for run in comparison.runs.values()):
        raise typer.Exit(INTERRUPTED)
