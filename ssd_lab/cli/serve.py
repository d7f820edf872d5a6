"""`ssd-lab serve`: models behind OpenAI's API."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.options import ENGINE, FIELDS, MODELS, of_config
from ssd_lab.cli.output import console, show_progress
from ssd_lab.common.parsing import parse_strategy
from ssd_lab.errors import ConfigError
from ssd_lab.serve.config import ServeConfig, read_api_keys

if TYPE_CHECKING:
    from fastapi import FastAPI

_SERVER, _LIMITS = "Server", "Limits"
_OF_LIMITS = ("max_queue", "max_choices", "max_output", "max_body_bytes", "request_timeout_s", "grace_s")
SERVER = of_config(ServeConfig, _SERVER, {}, *_OF_LIMITS) | of_config(
    ServeConfig, _LIMITS, {}, *(name for name in ServeConfig.model_fields if name not in _OF_LIMITS)
)
KeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", help="Keys that may ask, one a line. None: everybody.", rich_help_panel=_SERVER),
]


@options.takes(SERVER, FIELDS, MODELS, ENGINE, without=("import_",))
def command(
    fields: dict[str, Any],
    strategies: options.Strategies = None,
    import_: options.Import = None,
    api_key_file: KeyFile = None,
    warm_up: options.WarmUp = True,
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from ssd_lab.common.validation import validated

    of_server = {name: fields.pop(name) for name in ServeConfig.model_fields if name in fields}
    config = validated(ServeConfig, of_server, name="server")
    keys = () if api_key_file is None else read_api_keys(api_key_file)
    options.imported(import_)
    chosen = [parse_strategy(text) for text in strategies or ("async_tree",)]
    loaded = {**fields, "strategies": chosen, "served_name": config.served_name}
    try:
        from ssd_lab.serve.app import make_app
        from ssd_lab.serve.replicas.front import make_front
        from ssd_lab.serve.server import bound, serve, url_of
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the server needs {error.name}: in the checkout, pip install -e '.[serve]' brings it"
        ) from error

    listening = bound(config)  # before the models are loaded: an address that is taken is known at once
    told = console(stderr=True)
    with listening, _access_log() if config.access_log else nullcontext():
        make: Callable[[Any, ServeConfig, Sequence[str]], FastAPI] = make_app
        opened = _alone(loaded, config, warm_up)
        if config.replicas > 1:
            make, opened = make_front, _replicas(loaded, config, warm_up, tuple(import_ or ()))
        with opened as (engines, names):
            if not config.is_loopback and not keys:
                told.print(f"warning: {config.host} can be reached from elsewhere, and no --api-key-file was given")
            said = f"serving {', '.join(names)} at {url_of(listening)}"
            say = partial(told.print, soft_wrap=True)
            serve(make(engines, config, keys), config, listening, on_start=partial(say, said), say=say)


@contextmanager
def _alone(loaded: dict[str, Any], config: ServeConfig, warm_up: bool) -> Iterator[tuple[Any, list[str]]]:
    """Engines of this process, and the names of the models."""
    from ssd_lab.serve.served import load_served

    with load_served(max_queue=config.max_queue, progress=show_progress(), **loaded) as models:
        if warm_up:
            for model in models:
                model.llm.warm_up()
        yield models, [card["id"] for card in models.cards()]


@contextmanager
def _replicas(
    loaded: dict[str, Any], config: ServeConfig, warm_up: bool, imports: tuple[str, ...]
) -> Iterator[tuple[Any, list[str]]]:
    """The same for engines of several processes."""
    from ssd_lab.serve.replicas.cluster import deployed
    from ssd_lab.serve.replicas.replica import Load

    told = console(stderr=True)
    load = Load(loaded, config, warm_up, imports)
    with deployed(load, config.replicas, told=lambda said: told.print(said, soft_wrap=True)) as replicas:
        yield replicas, replicas.everyone_now("names")[0]


@contextmanager
def _access_log() -> Iterator[None]:
    """Within this every request is a line on stderr."""
    access, handler = logging.getLogger("ssd_lab.serve.access"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = access.level, access.propagate
    access.setLevel(logging.INFO)
    access.propagate = False
    access.addHandler(handler)
    try:
        yield
    finally:
        access.removeHandler(handler)
        access.level, access.propagate = before
