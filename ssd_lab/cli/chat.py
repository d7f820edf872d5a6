"""`ssd-lab chat`: talk with a model in the terminal, and see where each token came from."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.chat_screen import Screen
from ssd_lab.cli.interrupts import INTERRUPTED
from ssd_lab.cli.options import ENGINE, FIELDS, KNOBS, MODELS, SAMPLING, SEED
from ssd_lab.cli.output import FAILED, show_progress
from ssd_lab.common.parsing import parse_strategy
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.errors import ConfigError

_SERVER = "Server"
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Chat with a running OpenAI-compatible server, such as http://127.0.0.1:8000.",
        rich_help_panel=_SERVER,
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", help="One of the server's models. None: its first.", rich_help_panel=_SERVER)
]
KeyVariable = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        help="Environment variable that holds the server's key.",
        metavar="NAME",
        rich_help_panel=_SERVER,
    ),
]
System = Annotated[str | None, typer.Option("--system", help="The message before all others.")]
Marks = Annotated[
    bool | None,
    typer.Option(
        "--marks/--no-marks", help="Write where tokens came from into the text. None: where there are no colours."
    ),
]


@options.takes(KNOBS, FIELDS, MODELS, SAMPLING, SEED, ENGINE, max_tokens=256, max_batch=1)
def command(
    fields: dict[str, Any],
    strategy: options.Strategy = "async_tree",
    system: System = None,
    marks: Marks = None,
    warm_up: options.WarmUp = True,
    url: Url = None,
    model: Model = None,
    api_key_env: KeyVariable = None,
) -> None:
    """Open the model or the server, then answer until the user leaves or the input ends."""
    from ssd_lab.chat.session import Session
    from ssd_lab.cli.chat_loop import Loop
    from ssd_lab.common.validation import validated

    seed = fields.pop("seed", 0)
    sampling = {name: fields.pop(name) for name in list(fields) if name in SamplingParams.model_fields}
    params = validated(SamplingParams, sampling, name="sampling")
    screen = Screen(marks=marks)
    if url is None:
        _only_with_url(model=model, api_key_env=api_key_env)
        opened = _local(fields, strategy, seed, warm_up)
    else:
        opened = _remote(fields, strategy, url, model, api_key_env)
    try:
        ended = Loop(Session(opened, params, seed=seed, system=system), screen).run()
    finally:
        opened.close()
    if ended.interrupted:
        raise typer.Exit(INTERRUPTED)
    if ended.num_refused and not sys.stdin.isatty():  # nobody saw it
        raise typer.Exit(FAILED)


def _local(fields: dict[str, Any], strategy: str, seed: int, warm_up: bool) -> Any:
    from ssd_lab.chat.local import LocalModel
    from ssd_lab.strategies import registry

    target, draft = fields.pop("target", None), fields.pop("draft", None)
    engine = {name: fields.pop(name) for name in list(fields) if name in EngineConfig.model_fields}
    chosen = parse_strategy(strategy)
    config = registry.config(chosen.pop("strategy"), {**fields, **chosen})
    return LocalModel(target, draft, config, engine=engine, seed=seed, progress=show_progress(), warm_up=warm_up)


def _remote(fields: dict[str, Any], strategy: str, url: str, model: str | None, key_variable: str | None) -> Any:
    from ssd_lab.chat.remote import RemoteModel
    from ssd_lab.client.address import Address

    own = sorted(fields.keys() - {"max_batch"})
    if own or strategy != "async_tree":
        named = ", ".join([*own, *(["strategy"] if strategy != "async_tree" else [])])
        raise ConfigError(f"{named}: of a model in this process; with --url the server has its own, --model picks one")
    return RemoteModel(Address.of(url, key_variable), model)


def _only_with_url(**given: str | None) -> None:
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if names:
        raise ConfigError(f"{', '.join(names)} tell of a server: give its address with --url")
