"""`ssd-lab demo`: what `make demo` shows."""

from __future__ import annotations

from typing import Annotated

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import INTERRUPTED, console, interrupted, print_outputs, show_progress, want_json
from ssd_lab.cli.run import metrics_table

NAME = "demo"
HELP = "Text from the bundled models with async tree speculation, then a comparison."
K, FAN_OUT = 6, 3
SHOWN_PROMPTS = 4


def command(
    max_tokens: options.MaxTokens = 96,
    num_prompts: Annotated[int, typer.Option("--num-prompts", min=1, help="Canned prompts to use.")] = 8,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Run once for the text, then side by side, one request at a time."""
    want_json(False)
    out = console()
    from rich.rule import Rule
    from rich.text import Text

    out.print(Rule(f'ssd_lab.run(strategy="async_tree", k={K}, f={FAN_OUT})', align="left"))

    import ssd_lab
    from ssd_lab.demo import canned_prompts

    prompts = canned_prompts()[:num_prompts]
    result = ssd_lab.run(
        prompts,
        strategy="async_tree",
        k=K,
        f=FAN_OUT,
        max_tokens=max_tokens,
        device=device,
        dtype=dtype,
        progress=show_progress(),
    )
    print_outputs(result.outputs[:SHOWN_PROMPTS])
    out.print(metrics_table(result))
    if interrupted(result.outputs):
        raise typer.Exit(INTERRUPTED)

    out.print()
    out.print(Rule("The same prompts, one request at a time, three ways", align="left"))
    comparison = ssd_lab.compare(
        prompts,
        k=K,
        f=FAN_OUT,
        max_tokens=max_tokens,
        max_batch=1,
        device=device,
        dtype=dtype,
        progress=show_progress(),
    )
    out.print(comparison)
    if any(interrupted(run.outputs) for run in comparison.runs.values()):
        raise typer.Exit(INTERRUPTED)
    out.print(
        Text(
            "\nOn a CPU the target and the draft share the same cores, so speculation gains little here; the simulated "
            'column prices these same rounds on the published GPUs.\nNext: ssd-lab run "Your prompt", ssd-lab check '
            "--quick, ssd-lab --help (in .venv/bin).",
            style="dim",
        )
    )
