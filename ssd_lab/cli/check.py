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
from ssd_lab.cli.interrupts import INTERRUPTED
from ssd_lab.cli.options import CHAT, ENGINE, FIELDS, KNOBS, MODELS, PROMPTS
from ssd_lab.cli.output import FOUND_DIFFERENCE, console, print_json, show_progress
from ssd_lab.common.parsing import given, parse_strategy
from ssd_lab.common.places import ensure_writable
from ssd_lab.errors import ConfigError

if TYPE_CHECKING:
    from ssd_lab.check import CheckReport
    from ssd_lab.check.grid import GridReport


_WITHOUT = ("limit", "fallback", "max_batch")  # a check has its own batch sizes, and checks every fallback


@options.takes(PROMPTS, KNOBS, FIELDS, MODELS, CHAT, ENGINE, without=_WITHOUT, device="auto", dtype="auto")
def command(
    fields: dict[str, Any],
    strategies: options.Strategies = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smaller check: a quarter of an hour on a laptop, finds gross faults.")
    ] = False,
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
    json_: options.Json = False,
) -> None:
    """Run the check; the exit code is 1 if something was found."""
    if not greedy and not sampled:
        raise ConfigError("--no-greedy and --no-sampled together leave nothing to check: drop one of them")
    wanted = given(
        max_tokens=max_tokens,
        batches=tuple(batch) if batch else None,
        temperatures=tuple(temperature) if temperature else None,
        draws=draws,
    )
    chosen = [parse_strategy(text) for text in strategies or ()]
    if grid:
        others = {name: fields.pop(name, None) for name in (*KNOBS, *MODELS, *CHAT)}
        fitting = given(prompt=fields.pop("prompts"), **others)
        if fitting or quick:
            name = next(iter(fitting), "quick")
            raise ConfigError(f"--{name} does not go with --grid, which makes its own configurations: drop one of them")
        if num_prompts is not None:
            wanted |= {"bundled_prompts": num_prompts}
        if not greedy:
            wanted |= {"random_prompts": 0, "bundled_prompts": 0}
        if not sampled:
            wanted |= {"temperatures": ()}
        _run_grid(
            out,
            [parse_strategy(text) for text in strategies or ()],
            wanted,
            fields,
            seed=seed,
            fresh=fresh,
            as_json=json_,
        )
        return
    if out is not None or fresh:
        raise ConfigError("--out and --fresh belong to --grid")
    ours = {name: fields.pop(name) for name in ("prompts", "dtype", *MODELS, *CHAT) if name in fields}

    from ssd_lab.check import DEFAULT_STRATEGIES, Extent, check
    from ssd_lab.check.subjects import with_knobs

    wanted |= given(num_prompts=num_prompts)
    extent = dataclasses.replace(Extent.quick() if quick else Extent(), **wanted)
    if not greedy:
        extent = dataclasses.replace(extent, batches=())
    if not sampled:
        extent = dataclasses.replace(extent, temperatures=())
    entries, engine = with_knobs(chosen or DEFAULT_STRATEGIES, fields)
    _finish(check(entries, extent=extent, seed=seed, progress=show_progress(), **ours, **engine), as_json=json_)


def _run_grid(
    out: Path | None,
    strategies: Sequence[str | dict[str, Any]],
    wanted: dict[str, Any],
    fields: dict[str, Any],
    *,
    seed: int,
    fresh: bool,
    as_json: bool,
) -> None:
    from ssd_lab.check.grid import GridExtent, run_grid

    folder = out or Path("results") / "check-grid"
    ensure_writable(folder if folder.exists() else folder.parent, "--out", folder=True)
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
