"""`ssd-lab peer`: speed beside transformers, on the same weights, dtype, prompts and lengths."""

from __future__ import annotations

from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json, show_progress, want_json
from ssd_lab.cli.prompts import read_prompts

NAME = "peer"
HELP = "Speed beside transformers: generate and assisted generation on the same weights."


def command(
    prompts: options.Prompts = None,
    prompt_file: options.PromptFile = None,
    limit: options.Limit = None,
    target: options.Target = None,
    draft: options.Draft = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Draft tokens a round.")] = 6,
    f: Annotated[int, typer.Option("--f", min=1, help="Fan-out of async_tree.")] = 3,
    max_tokens: options.MaxTokens = 64,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Times that each contender runs all prompts.")] = 5,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    json_: options.Json = False,
) -> None:
    """Take turns at batch 1 and temperature 0, and print medians."""
    want_json(json_)
    many = read_prompts(prompts, prompt_file, limit)

    from ssd_lab import demo
    from ssd_lab.bench.peer import compare_with_transformers

    report = compare_with_transformers(
        str(target or demo.TARGET),
        str(draft or demo.DRAFT),
        demo.canned_prompts() if many is None else many,
        k=k,
        f=f,
        max_tokens=max_tokens,
        repeats=repeats,
        dtype=dtype,
        device=device,
        progress=show_progress(),
    )
    if json_:
        print_json({"settings": report.settings, "rows": report.rows()})
        return
    from rich.table import Table

    table = Table(
        title=f"Batch 1, temperature 0, {max_tokens} tokens each, {report.settings['dtype']}, median of {repeats}"
    )
    table.add_column("")
    for column in ("tokens/s", "over transformers", "over autoregressive", "same text"):
        table.add_column(column, justify="right")
    for row in report.rows():
        table.add_row(
            row["name"],
            f"{row['tokens_per_second']:.0f}",
            f"{row['over_transformers']:.2f}x",
            f"{row['over_autoregressive']:.2f}x",
            f"{row['same_text']}/{row['prompts']}",
        )
    console().print(table)
