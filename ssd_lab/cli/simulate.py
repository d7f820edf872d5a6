"""`ssd-lab simulate`: rounds on another machine's virtual clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, print_json
from ssd_lab.common.parsing import given, parse_strategy
from ssd_lab.errors import ConfigError

if TYPE_CHECKING:
    from ssd_lab.simulate import Scenario

PUBLISHED = "published-4xh100+1"


def command(
    trace: Annotated[Path | None, typer.Argument(help="Rounds of `run --trace`; none: give --acceptance.")] = None,
    hardware: Annotated[str, typer.Option("--hardware", help="A published profile's name or a .json.")] = PUBLISHED,
    draft_gpus: Annotated[
        int | None, typer.Option("--draft-gpus", min=1, help="Devices that share a tree's branches.")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            "-s",
            help='Draw rounds of this strategy from the trace\'s outcomes: "async_tree k=4 fan_out=3 fallback=auto", '
            "or one of yours with its own fields. None: replay them as they were.",
        ),
    ] = None,
    acceptance: Annotated[
        float | None, typer.Option("--acceptance", min=0, max=1, help="P(a draft token is accepted).")
    ] = None,
    hit_rate: Annotated[
        float | None, typer.Option("--hit-rate", min=0, max=1, help="Draws the lookups; none: no cache.")
    ] = None,
    k: Annotated[int | None, typer.Option("--k", min=0, help="Draft tokens a round, with --acceptance.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Sequences together, of drawn rounds.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How many are drawn.")] = 5000,
    full_miss_cost: Annotated[
        bool, typer.Option("--full-miss-cost", help="A miss waits for the unfinished tree as well.")
    ] = False,
    seed: options.Seed = 0,
    import_: options.Import = None,
    json_: options.Json = False,
) -> None:
    """Replay a trace, draw from its outcomes, or draw from rates."""
    options.imported(import_)
    if (trace is None) == (acceptance is None):
        raise ConfigError("give a trace, or --acceptance (with --k and --hit-rate) to make rounds up: one of the two")
    from ssd_lab.simulate import Rates, simulate
    from ssd_lab.trace import load_trace

    what: Any
    more: dict[str, Any] = {"seed": seed}
    if trace is None:
        if strategy is not None:
            raise ConfigError("--strategy draws from a trace's outcomes; rates say it by --k and --hit-rate")
        what = Rates(acceptance or 0.0, 6 if k is None else k, hit_rate, batch=batch, rounds=rounds, seed=seed)
    else:
        what = load_trace(trace)
        if k is not None:
            raise ConfigError('--k goes with --acceptance; for a trace write it in --strategy "async_tree k=4"')
        if strategy is not None:
            more["scenario"] = replace(_scenario(**parse_strategy(strategy)), batch=batch, rounds=rounds, seed=seed)
        else:
            more |= given(hit_rate=hit_rate)
    found = simulate(what, hardware, draft_gpus=draft_gpus, miss_cost="full" if full_miss_cost else "paper", **more)
    if json_:
        print_json(found.as_dict())
        return
    out = console()
    out.print(str(found), markup=False)
    if found.recorded_tokens_per_second is not None:
        out.print(f"recorded, where it ran: {found.recorded_tokens_per_second:.1f} tokens/s")
    for cause, seconds in found.time_by_cause.items():
        if seconds > 0:
            out.print(f"  {cause}: {seconds / found.time_s:.1%} of the time")
    for caveat in found.caveats:
        out.print(f"note: {caveat}", markup=False)


def _scenario(strategy: str, **fields: Any) -> Scenario:
    from ssd_lab.simulate.scenario import BUILT_IN, Scenario

    if strategy not in BUILT_IN:
        from ssd_lab.strategies import registry

        return registry.config(strategy, fields).scenario
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    if "f" in fields:
        fields["fan_out"] = fields.pop("f")
    try:
        return Scenario(strategy, **fields)
    except TypeError as error:
        raise ConfigError(f"--strategy: {error}; its fields are k, fan_out (or f), fallback, mode, widths") from error
