"""`ssd-lab reproduce`: the paper's figures beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json, show_progress
from ssd_lab.common.places import ensure_writable

_MARKS = {True: "[green]holds[/green]", False: "[red]does not hold[/red]", None: "cannot be told"}


@options.takes(
    options.MODELS, options.MAX_TOKENS, options.SEED, options.DEVICE, max_tokens=96, device="auto", dtype="auto"
)
def command(
    fields: dict[str, Any],
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
    k: Annotated[int, typer.Option("--k", min=1, max=32, help="Draft tokens a round.")] = 7,
    json_: options.Json = False,
) -> None:
    """Write the report and list its claims."""
    from ssd_lab.bench.reproduce import reproduce

    ensure_writable(out if out.exists() else out.parent, "--out", folder=True)
    out_ = console()
    found = reproduce(
        out,
        sections=section or (),
        k=k,
        prompts=prompts,
        progress=show_progress(),
        fresh=fresh,
        on_section=lambda key: None if json_ else out_.print(f"[dim]{key}[/dim]"),
        **fields,
    )
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
