"""`ssd-lab demo`: what `make demo` shows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_outputs, show_progress
from ssd_lab.cli.run import metrics_table

K, FAN_OUT = 6, 3
SHOWN_PROMPTS = 4
MODELS = (
    "The bundled models are tiny, a target of 17 million parameters and a draft of 3 million, and what they say is "
    "often wrong, with or without speculation. What is promised is the same text as the target's own, not a true one."
)


@options.takes(options.MAX_TOKENS, options.DEVICE, max_tokens=96)
def command(
    fields: dict[str, Any],
    num_prompts: Annotated[int, typer.Option("--num-prompts", min=1, help="Canned prompts to use.")] = 8,
) -> None:
    """Run once for the text, then side by side, one request at a time."""
    from ssd_lab.errors import RunInterrupted

    try:
        _shown(fields, num_prompts)
    except RunInterrupted as stopped:
        console().print(stopped.result)
        raise


def _shown(fields: dict[str, Any], num_prompts: int) -> None:
    out = console()
    from rich.rule import Rule
    from rich.text import Text

    out.print(Text(MODELS, style="dim"))
    out.print(Rule(f'ssd_lab.run(strategy="async_tree", k={K}, f={FAN_OUT})', align="left"))

    import ssd_lab
    from ssd_lab.demo import canned_prompts

    prompts = canned_prompts()[:num_prompts]
    knobs: dict[str, Any] = {"k": K, "f": FAN_OUT, "progress": show_progress(), **fields}
    result = ssd_lab.run(prompts, strategy="async_tree", **knobs)
    print_outputs(result.outputs[:SHOWN_PROMPTS])
    out.print(metrics_table(result))

    out.print()
    out.print(Rule("The same prompts, one request at a time, three ways", align="left"))
    comparison = ssd_lab.compare(prompts, max_batch=1, **knobs)
    out.print(comparison)
    out.print(
        Text(
            "\nOn a CPU the target and the draft share the same cores, so speculation gains little here; the simulated "
            'row prices these same rounds on the published GPUs.\nNext: ssd-lab run "Your prompt", ssd-lab check '
            "--quick, ssd-lab --help (in .venv/bin).",
            style="dim",
        )
    )
