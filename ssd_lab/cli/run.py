"""`ssd-lab run`: generate text with one strategy."""

from __future__ import annotations

from typing import Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import INTERRUPTED, console, interrupted, print_json, print_outputs, show_progress, want_json
from ssd_lab.cli.prompts import read_prompts
from ssd_lab.common.parsing import given, import_modules, merged, parse_strategy

NAME = "run"
HELP = "Generate text with one strategy, and show what it took."


def command(
    prompts: options.Prompts = None,
    prompt_file: options.PromptFile = None,
    limit: options.Limit = None,
    strategy: options.Strategy = "async_tree",
    k: options.Lookahead = None,
    f: options.FanOut = None,
    fallback: options.Fallback = None,
    set_: options.Set = None,
    import_: options.Import = None,
    target: options.Target = None,
    draft: options.Draft = None,
    chat: options.Chat = None,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    min_p: options.MinP = 0.0,
    max_tokens: options.MaxTokens = 128,
    seed: options.Seed = 0,
    stop: options.Stop = None,
    ignore_eos: options.IgnoreEos = False,
    batch: options.Batch = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    trace: options.TraceFile = None,
    json_: options.Json = False,
) -> None:
    """Generate, print texts and numbers."""
    want_json(json_)
    import_modules(import_ or ())
    chosen = parse_strategy(strategy)
    own: dict[str, Any] = dict(chosen) if isinstance(chosen, dict) else {"strategy": chosen}
    name = own.pop("strategy")
    fields = {**merged(given(k=k, f=f, fallback=fallback), set_ or ()), **own}
    many = read_prompts(prompts, prompt_file, limit)

    import ssd_lab

    result = ssd_lab.run(
        many,
        strategy=name,
        target=target,
        draft=draft,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        max_tokens=max_tokens,
        seed=seed,
        device=device,
        dtype=dtype,
        chat=chat,
        progress=show_progress(),
        ignore_eos=ignore_eos,
        **given(stop=stop, max_batch=batch),
        **fields,
    )
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
