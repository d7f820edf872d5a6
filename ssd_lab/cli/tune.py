"""`ssd-lab tune`: the fastest strategy for these prompts on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json, show_progress, want_json
from ssd_lab.cli.prompts import read_prompts
from ssd_lab.common.parsing import given, import_modules, parse_assignments
from ssd_lab.errors import ConfigError

NAME = "tune"
HELP = "Pick strategy, k, schedule and fallback for your prompts and machine, in seconds."


def command(
    prompts: options.Prompts = None,
    prompt_file: options.PromptFile = None,
    limit: options.Limit = None,
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
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A field of the engine. Repeatable.")
    ] = None,
    import_: options.Import = None,
    target: options.Target = None,
    draft: options.Draft = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="EAGLE3 head to try too: hub id or folder. None: the bundled target's own."),
    ] = None,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    min_p: options.MinP = 0.0,
    max_tokens: options.MaxTokens = 64,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    json_: options.Json = False,
) -> None:
    """Calibrate, score a grid on the virtual clock, confirm the best, and say how to run it."""
    want_json(json_)
    import_modules(import_ or ())
    if trace is not None and (prompts or prompt_file):
        raise ConfigError("--trace holds its own texts: leave the prompts out")
    many = read_prompts(prompts, prompt_file, limit)
    from ssd_lab.trace import load_trace
    from ssd_lab.tune import tune

    tuning = tune(
        many,
        target=target,
        draft=draft,
        budget_s=budget_s,
        batch=batch,
        temperature=temperature,
        max_tokens=max_tokens,
        hardware=hardware,
        trace=None if trace is None else load_trace(trace),
        full_grid=full_grid,
        head=head,
        device=device,
        dtype=dtype,
        progress=show_progress(),
        **given(top_p=top_p, top_k=top_k, min_p=min_p),
        **parse_assignments(set_ or ()),
    )
    if json_:
        print_json(tuning.as_dict())
    else:
        out = console()
        out.print(tuning.table())
        for line in tuning.lines():  # the command stays one line, to be copied
            out.print(line, markup=False, soft_wrap=True)
