"""`ssd-lab compare`: several strategies on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.options import CHAT, ENGINE, FIELDS, KNOBS, MODELS, PROMPTS, SAMPLING, SEED
from ssd_lab.cli.output import console, print_json, show_progress
from ssd_lab.common.parsing import parse_strategy
from ssd_lab.common.places import ensure_writable, write_text

DEFAULT = ("autoregressive", "sync_chain", "async_tree")


@options.takes(PROMPTS, KNOBS, FIELDS, MODELS, CHAT, SAMPLING, SEED, ENGINE)
def command(
    fields: dict[str, Any],
    strategies: options.Strategies = None,
    warm_up: options.WarmUp = True,
    repeats: options.Repeats = None,
    timeline: Annotated[
        Path | None, typer.Option("--timeline", help="Draw the rounds of all runs into this SVG.")
    ] = None,
    json_: options.Json = False,
) -> None:
    """Compare and print one table."""
    chosen = [parse_strategy(text) for text in strategies or DEFAULT]

    if timeline is not None:
        ensure_writable(timeline, "--timeline")

    import ssd_lab
    from ssd_lab.errors import RunInterrupted

    stopped = None
    try:
        comparison = ssd_lab.compare(
            strategies=chosen, progress=show_progress(), warm_up=warm_up, repeats=repeats, **fields
        )
    except RunInterrupted as interruption:
        comparison, stopped = interruption.result, interruption
    if json_:
        print_json(comparison.as_dict() | {"interrupted": stopped is not None})
    elif comparison.runs:
        console().print(comparison)
    if timeline is not None and comparison.runs:
        from ssd_lab.display.timeline import timeline_svg

        write_text(timeline, timeline_svg({name: run.trace for name, run in comparison.runs.items()}))
    if stopped is not None:
        raise stopped
