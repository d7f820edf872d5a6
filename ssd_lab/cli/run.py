"""`ssd-lab run`: generate text with one strategy."""

from __future__ import annotations

from typing import Any

from ssd_lab.cli import options
from ssd_lab.cli.options import CHAT, ENGINE, FIELDS, KNOBS, MODELS, PROMPTS, SAMPLING, SEED
from ssd_lab.cli.output import console, print_json, print_outputs, show_progress
from ssd_lab.common.parsing import parse_strategy
from ssd_lab.common.places import ensure_writable


@options.takes(PROMPTS, KNOBS, FIELDS, MODELS, CHAT, SAMPLING, SEED, ENGINE)
def command(
    fields: dict[str, Any],
    strategy: options.Strategy = "async_tree",
    trace: options.TraceFile = None,
    json_: options.Json = False,
) -> None:
    """Generate, print texts and numbers."""
    chosen = parse_strategy(strategy)
    if trace is not None:
        ensure_writable(trace, "--trace")

    import ssd_lab
    from ssd_lab.errors import RunInterrupted

    stopped = None
    try:
        result = ssd_lab.run(progress=show_progress(), **{**fields, **chosen})
    except RunInterrupted as interruption:
        result, stopped = interruption.result, interruption
    if json_:
        print_json(result.as_dict())
    else:
        print_outputs(result.outputs)
        console().print(metrics_table(result))
    if trace is not None:
        result.trace.save(trace)
        if not json_:
            console(stderr=True).print(f"Its rounds, to step through: ssd-lab view {trace} --open", highlight=False)
    if stopped is not None:
        raise stopped


def metrics_table(result: Any) -> Any:
    """The run's numbers without its text, which was printed in full."""
    from ssd_lab.display.tables import RUN_COLUMNS
    from ssd_lab.results import Comparison

    return RUN_COLUMNS.table(Comparison({result.strategy_name: result}).rows(), notes=result.notes()).to_rich()
