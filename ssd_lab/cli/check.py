"""`ssd-lab check`: is the speculative text the same?"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.fields import given, import_modules, merged, parse_strategy
from ssd_lab.cli.output import FOUND_DIFFERENCE, INTERRUPTED, console, print_json, show_progress, want_json
from ssd_lab.cli.prompts import read_prompts
from ssd_lab.errors import ConfigError

NAME = "check"
HELP = "Compare strategies with autoregressive decoding: token for token, and path by path in distribution."


def command(
    prompts: options.Prompts = None,
    prompt_file: options.PromptFile = None,
    strategies: options.Strategies = None,
    k: options.Lookahead = None,
    f: options.FanOut = None,
    set_: options.Set = None,
    import_: options.Import = None,
    target: options.Target = None,
    draft: options.Draft = None,
    chat: options.Chat = None,
    quick: Annotated[bool, typer.Option("--quick", help="A smaller check: minutes, finds gross faults.")] = False,
    greedy: Annotated[bool, typer.Option("--greedy/--no-greedy", help="The check at temperature 0.")] = True,
    sampled: Annotated[bool, typer.Option("--sampled/--no-sampled", help="The check at temperature > 0.")] = True,
    num_prompts: Annotated[int | None, typer.Option("--num-prompts", min=1, help="Greedy: built-in prompts.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", "-n", min=1, help="Greedy: tokens each.")] = None,
    batch: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Greedy: batch size; repeatable.")] = None,
    temperature: Annotated[
        list[float] | None, typer.Option("--temperature", "-t", help="Sampled: temperature; repeatable.")
    ] = None,
    draws: Annotated[int | None, typer.Option("--draws", min=500, help="Sampled: tokens on every path.")] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    json_: options.Json = False,
) -> None:
    """Run the check; the exit code is 1 if something was found."""
    want_json(json_)
    if not greedy and not sampled:
        raise ConfigError("--no-greedy and --no-sampled together leave nothing to check: drop one of them")
    import_modules(import_ or ())
    chosen = [parse_strategy(text) for text in strategies or ()]
    knobs = merged(given(k=k, f=f), set_ or ())
    many = read_prompts(prompts, prompt_file)

    from ssd_lab.check import DEFAULT_STRATEGIES, Extent, check
    from ssd_lab.check.subjects import with_knobs

    wanted = given(
        num_prompts=num_prompts,
        max_tokens=max_tokens,
        batches=tuple(batch) if batch else None,
        temperatures=tuple(temperature) if temperature else None,
        draws=draws,
    )
    extent = dataclasses.replace(Extent.quick() if quick else Extent(), **wanted)
    if not greedy:
        extent = dataclasses.replace(extent, batches=())
    if not sampled:
        extent = dataclasses.replace(extent, temperatures=())
    entries, engine = with_knobs(chosen or DEFAULT_STRATEGIES, knobs)
    report = check(
        entries,
        target=target,
        draft=draft,
        prompts=many,
        extent=extent,
        seed=seed,
        dtype=dtype,
        chat=chat,
        progress=show_progress(),
        device=device,
        **engine,
    )
    if json_:
        print_json(report.as_dict())
    else:
        console().print(report)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not report.same:
        raise typer.Exit(FOUND_DIFFERENCE)
