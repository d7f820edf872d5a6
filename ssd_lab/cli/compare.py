"""`ssd-lab compare`: several strategies on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import INTERRUPTED, console, interrupted, print_json, show_progress, want_json
from ssd_lab.cli.prompts import read_prompts
from ssd_lab.common.parsing import given, import_modules, merged, parse_strategy

NAME = "compare"
HELP = "Run several strategies on the same prompts, side by side."
DEFAULT = ("autoregressive", "sync_chain", "async_tree")


def command(
    prompts: options.Prompts = None,
    prompt_file: options.PromptFile = None,
    limit: options.Limit = None,
    strategies: options.Strategies = None,
    k: options.Lookahead = None,
    f: options.FanOut = None,
    fallback: options.Fallback = None,
    set_: options.Set = None,
    import_: options.Import = None,
    target: options.Target = None,
    draft: options.Draft = None,
    chat: options.Chat = None,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    min_p: options.MinP = 0.0,
    max_tokens: options.MaxTokens = 128,
    seed: options.Seed = 0,
    ignore_eos: options.IgnoreEos = False,
    batch: options.Batch = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    warm_up: options.WarmUp = True,
    timeline: Annotated[
        Path | None, typer.Option("--timeline", help="Draw the rounds of all runs into this SVG.")
    ] = None,
    json_: options.Json = False,
) -> None:
    """Compare and print one table."""
    want_json(json_)
    import_modules(import_ or ())
    fields = merged(given(k=k, f=f, fallback=fallback), set_ or ())
    many = read_prompts(prompts, prompt_file, limit)
    chosen = [parse_strategy(text) for text in strategies or DEFAULT]

    import ssd_lab

    comparison = ssd_lab.compare(
        many,
        strategies=chosen,
        target=target,
        draft=draft,
        device=device,
        dtype=dtype,
        progress=show_progress(),
        warm_up=warm_up,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        max_tokens=max_tokens,
        seed=seed,
        chat=chat,
        ignore_eos=ignore_eos,
        **given(max_batch=batch),
        **fields,
    )
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
