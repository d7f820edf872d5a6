"""`ssd-lab reproduce`: the paper's figures beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json, show_progress, want_json

NAME = "reproduce"
HELP = "The figures of the Saguaro paper beside ours: rounds recorded here, and the virtual clock."

_MARKS = {True: "[green]holds[/green]", False: "[red]does not hold[/red]", None: "cannot be told"}


def command(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report; an earlier run there goes on.")] = Path(
        "reproduction"
    ),
    section: Annotated[
        list[str] | None,
        typer.Option("--section", help="Make this one, again if it is there; repeatable. None: all that are missing."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds from earlier runs.")] = False,
    prompts: Annotated[
        int, typer.Option("--prompts", min=2, help="Of each of three sets, at three temperatures.")
    ] = 40,
    max_tokens: options.MaxTokens = 96,
    k: Annotated[int, typer.Option("--k", min=1, max=32, help="Draft tokens a round.")] = 7,
    target: options.Target = None,
    draft: options.Draft = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    json_: options.Json = False,
) -> None:
    """Write the report and list its claims."""
    want_json(json_)

    from ssd_lab.bench.reproduce import reproduce

    out_ = console()
    found = reproduce(
        out, sections=section or (), target=target, draft=draft, k=k, prompts=prompts, max_tokens=max_tokens, seed=seed,
        progress=show_progress(), device=device, dtype=dtype, fresh=fresh,
        on_section=lambda key: None if json_ else out_.print(f"[dim]{key}[/dim]"),
    )  # fmt: skip
    if json_:
        print_json({one.key: {"claims": [vars(claim) for claim in one.claims], **one.numbers} for one in found})
        return
    for one in found:
        out_.print(f"[bold]{one.title}[/bold]")
        for claim in one.claims:
            out_.print(
                f"  {_MARKS[claim.holds]}: {claim.text}" + (f" [dim]({claim.detail})[/dim]" if claim.detail else "")
            )
    out_.print(f"written: {out / 'report.md'}")
