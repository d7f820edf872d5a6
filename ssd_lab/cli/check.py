"""`ssd-lab check`: is the speculative text the same?"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import FOUND_DIFFERENCE, INTERRUPTED, console, print_json, show_progress
from ssd_lab.cli.prompts import read_prompts
from ssd_lab.common.parsing import given, import_modules, merged, parse_strategy
from ssd_lab.errors import ConfigError

if TYPE_CHECKING:
    from ssd_lab.check import CheckReport
    from ssd_lab.check.grid import GridReport


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
    grid: Annotated[
        bool, typer.Option("--grid", help="Every strategy with every component instead, on models made for testing.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Grid: folder of the report and of finished cells (results/check-grid)."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Grid: begin anew instead of going on.")] = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    json_: options.Json = False,
) -> None:
    """Run the check; the exit code is 1 if something was found."""
    if not greedy and not sampled:
        raise ConfigError("--no-greedy and --no-sampled together leave nothing to check: drop one of them")
    import_modules(import_ or ())
    wanted = given(
        max_tokens=max_tokens,
        batches=tuple(batch) if batch else None,
        temperatures=tuple(temperature) if temperature else None,
        draws=draws,
    )
    if grid:
        fitting = given(prompt=prompts, prompt_file=prompt_file, k=k, f=f, target=target, draft=draft, chat=chat)
        if fitting or quick:
            name = next(iter(fitting), "quick").replace("_", "-")
            raise ConfigError(f"--{name} does not go with --grid, which makes its own configurations: drop one of them")
        if num_prompts is not None:
            wanted |= {"bundled_prompts": num_prompts}
        if not greedy:
            wanted |= {"random_prompts": 0, "bundled_prompts": 0}
        if not sampled:
            wanted |= {"temperatures": ()}
        fields = {**merged({}, set_ or ()), "device": device, "dtype": dtype}
        _run_grid(out, strategies or (), wanted, fields, seed=seed, fresh=fresh, as_json=json_)
        return
    if out is not None or fresh:
        raise ConfigError("--out and --fresh belong to --grid")
    chosen = [parse_strategy(text) for text in strategies or ()]
    knobs = merged(given(k=k, f=f), set_ or ())
    many = read_prompts(prompts, prompt_file)

    from ssd_lab.check import DEFAULT_STRATEGIES, Extent, check
    from ssd_lab.check.subjects import with_knobs

    wanted |= given(num_prompts=num_prompts)
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
    _finish(report, as_json=json_)


def _run_grid(
    out: Path | None,
    strategies: Sequence[str],
    wanted: dict[str, Any],
    fields: dict[str, Any],
    *,
    seed: int,
    fresh: bool,
    as_json: bool,
) -> None:
    from ssd_lab.check.grid import GridExtent, run_grid

    folder = out or Path("results") / "check-grid"
    report = run_grid(
        folder,
        strategies=strategies,
        extent=GridExtent(**wanted),
        seed=seed,
        fresh=fresh,
        progress=show_progress(),
        command=shlex.join(["ssd-lab", *sys.argv[1:]]),
        **fields,
    )
    _finish(report, as_json=as_json)


def _finish(report: CheckReport | GridReport, *, as_json: bool) -> None:
    """Show it; the exit code says what was found."""
    if as_json:
        print_json(report.as_dict())
    else:
        console().print(report)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not report.same:
        raise typer.Exit(FOUND_DIFFERENCE)
