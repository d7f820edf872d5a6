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
    out: Annotated[Path, typer.Option("--out", help="Folder for report.md, report.json, rounds and figures.")] = Path(
        "reproduction"
    ),
    section: Annotated[
        list[str] | None, typer.Option("--section", help="Only this one; repeatable. None: all of them.")
    ] = None,
    prompts: Annotated[
        int, typer.Option("--prompts", min=2, help="Of each of three sets, at three temperatures.")
    ] = 24,
    max_tokens: options.MaxTokens = 96,
    k: Annotated[int, typer.Option("--k", min=1, max=32, help="Draft tokens a round.")] = 6,
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

    found = reproduce(
        out, sections=section or (), target=target, draft=draft, k=k, prompts=prompts, max_tokens=max_tokens, seed=seed,
        progress=show_progress(), device=device, dtype=dtype,
    )  # fmt: skip
    if json_:
        print_json({one.key: {"claims": [vars(claim) for claim in one.claims], **one.numbers} for one in found})
        return
    out_ = console()
    for one in found:
        out_.print(f"[bold]{one.title}[/bold]")
        for claim in one.claims:
            mark = {True: "[green]holds[/green]", False: "[red]does not hold[/red]", None: "cannot be told"}[
                claim.holds
            ]
            out_.print(f"  {mark}: {claim.text}" + (f" [dim]({claim.detail})[/dim]" if claim.detail else ""))
    out_.print(f"written: {out / 'report.md'}")
