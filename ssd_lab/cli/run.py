"""`ssd-lab run`: generate text with one strategy."""

from __future__ import annotations

from typing import Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.options import CHAT, ENGINE, FIELDS, KNOBS, MODELS, PROMPTS, SAMPLING, SEED
from ssd_lab.cli.output import INTERRUPTED, console, interrupted, print_json, print_outputs, show_progress
from ssd_lab.common.parsing import parse_strategy


@options.takes(PROMPTS, KNOBS, FIELDS, MODELS, CHAT, SAMPLING, SEED, ENGINE)
def command(
    fields: dict[str, Any],
    strategy: options.Strategy = "async_tree",
    trace: options.TraceFile = None,
    json_: options.Json = False,
) -> None:
    """Generate, print texts and numbers."""
    chosen = parse_strategy(strategy)

    import ssd_lab

    result = ssd_lab.run(progress=show_progress(), **{**fields, **chosen})
    if trace is not None:
        result.trace.save(trace)
    if json_:
        print_json(result.as_dict())
    else:
        print_outputs(result.outputs)
        console().print(metrics_table(result))
    if interrupted(result.outputs):
        raise typer.Exit(INTERRUPTED)


def metrics_table(result: Any) -> Any:
    """The run's numbers without its text, which was printed in full."""
    from ssd_lab.display.tables import RUN_COLUMNS
    from ssd_lab.results import Comparison

    metrics = result.metrics
    notes = [] if metrics.exact else [f"NOT EXACT: {metrics.lossy_reason}"]
    return RUN_COLUMNS.table(Comparison({result.strategy_name: result}).rows(), notes=notes).to_rich()
