"""`ssd-lab tune`: the fastest strategy for these prompts on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.options import ENGINE, FIELDS, MODELS, PROMPTS, SAMPLING
from ssd_lab.cli.output import console, print_json, show_progress
from ssd_lab.errors import ConfigError


@options.takes(PROMPTS, FIELDS, MODELS, SAMPLING, ENGINE, without=("max_batch",), max_tokens=64)
def command(
    fields: dict[str, Any],
    budget_s: Annotated[float, typer.Option("--budget-s", help="Seconds of measuring, loading left out.")] = 30.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Sequences decoded together.")] = 1,
    hardware: Annotated[
        str | None,
        typer.Option("--hardware", help="Measure nothing: price the rounds of --trace on this machine."),
    ] = None,
    trace: Annotated[Path | None, typer.Option("--trace", help="Rounds of an async_tree run, for --hardware.")] = None,
    full_grid: Annotated[
        bool, typer.Option("--full-grid", help="Also try the winner against a full grid: takes minutes.")
    ] = False,
    head: Annotated[
        str | None,
        typer.Option("--head", help="EAGLE3 head to try too: hub id or folder. None: the bundled target's own."),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Calibrate, score a grid on the virtual clock, confirm the best, and say how to run it."""
    if trace is not None and fields["prompts"] is not None:
        raise ConfigError("--trace holds its own texts: leave the prompts out")
    from ssd_lab.errors import RunInterrupted
    from ssd_lab.trace import load_trace
    from ssd_lab.tune import tune

    stopped = None
    try:
        tuning = tune(
            budget_s=budget_s,
            batch=batch,
            hardware=hardware,
            trace=None if trace is None else load_trace(trace),
            full_grid=full_grid,
            head=head,
            progress=show_progress(),
            **fields,
        )
    except RunInterrupted as interruption:
        tuning, stopped = interruption.result, interruption
    if json_:
        print_json(tuning.as_dict())
    else:
        out = console()
        out.print(tuning.table())
        for line in tuning.lines():  # the command stays one line, to be copied
            out.print(line, markup=False, soft_wrap=True)
    if stopped is not None:
        raise stopped
