"""`ssd-lab bench serve`: load on an OpenAI-compatible server, and on others beside it."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.serving.config import Limits, LoadConfig
from ssd_lab.bench.store import DEFAULT_TABLE, RunTable
from ssd_lab.cli import options
from ssd_lab.cli.options import of_config
from ssd_lab.cli.output import FAILED, console, folded, print_json, show_progress
from ssd_lab.common.validation import validated
from ssd_lab.errors import ConfigError

_SERVERS, _LOAD, _REQUESTS = "Servers", "Load", "Requests"


def _option(names: str, meaning: str, panel: str, **how: Any) -> Any:
    return typer.Option(*names.split(), help=meaning, rich_help_panel=panel, **how)


_URL = "The server, http://host:port; http://host:port#MODEL asks that model of it, else its first."
Url = Annotated[str | None, _option("--url", _URL, _SERVERS)]
Serve = Annotated[
    str | None,
    _option("--serve", "Start ours for it: \"-s 'async_tree k=4' --batch 16\", flags of `ssd-lab serve`.", _SERVERS),
]
PeerUrls = Annotated[
    list[str] | None, _option("--peer-url", "Another server that gets the same requests. Repeatable.", _SERVERS)
]
KeyVariable = Annotated[
    str | None, _option("--api-key-env", "Environment variable with the key of --url.", _SERVERS, metavar="NAME")
]
PeerKeyVariable = Annotated[
    str | None, _option("--peer-api-key-env", "Environment variable with the peers' key.", _SERVERS, metavar="NAME")
]
LOAD = of_config(
    LoadConfig,
    _LOAD,
    {"concurrency": ("--concurrency", "-c"), "duration_s": ("--duration",), "timeout_s": ("--timeout",)},
    *("url", "model", "limits"),
)
LIMITS = of_config(Limits, _LOAD, {name: (f"--limit-{name.replace('_', '-')}",) for name in Limits.model_fields})
OF_RUN = ("repeats", "temperature")
RUN = of_config(
    BenchConfig,
    _REQUESTS,
    {"temperature": ("--temperature", "-t")},
    *(name for name in BenchConfig.model_fields if name not in OF_RUN),
)
Requests = Annotated[int, _option("--num-requests", "Requests in all, where no duration is given.", _LOAD, min=1)]
Datasets = Annotated[
    list[str] | None,
    _option("--dataset", "Prompts: `example`, a set, a .txt or .jsonl file. Repeatable.", _REQUESTS),
]
MaxTokens = Annotated[int, _option("--max-tokens -n", "Tokens of each answer.", _REQUESTS, min=1)]
IgnoreEos = Annotated[
    bool,
    _option("--ignore-eos/--no-ignore-eos", "Ask for answers of full length (no field of OpenAI's own).", _REQUESTS),
]
Seed = Annotated[int, _option("--seed", "Of arrivals and sampling.", _REQUESTS)]
Name = Annotated[str | None, typer.Option("--name", help="The run's name in the table; peers are named by address.")]
Group = Annotated[str | None, typer.Option("--group", help="The runs' group in the table.")]
Table = Annotated[Path, typer.Option("--table", help="The SQLite file that results go to.")]


@options.takes(LOAD, LIMITS, RUN)
def command(
    given: dict[str, Any],
    url: Url = None,
    serve: Serve = None,
    peer_url: PeerUrls = None,
    api_key_env: KeyVariable = None,
    peer_api_key_env: PeerKeyVariable = None,
    num_requests: Requests = 64,
    dataset: Datasets = None,
    max_tokens: MaxTokens = 64,
    ignore_eos: IgnoreEos = True,
    seed: Seed = 0,
    name: Name = None,
    group: Group = None,
    table: Table = DEFAULT_TABLE,
    json_: options.Json = False,
) -> None:
    """Measure, keep the results in the run table, and show servers side by side."""
    from ssd_lab.bench.serving.own_server import own_server
    from ssd_lab.bench.serving.run import chosen_model, run_load
    from ssd_lab.client.address import Address

    if (url is None) == (serve is None):
        raise ConfigError("name a server with --url, or have ours started with --serve, and not both")
    limits, run = ({name: given.pop(name) for name in names if name in given} for names in (LIMITS, RUN))
    loop = {} if "rate" in given else {"concurrency": 8}
    load = {**loop, **given, "limits": limits}
    validated(LoadConfig, {**load, "url": "", "model": ""}, name="load")  # before a server is started
    fields = {
        "datasets": tuple(dataset or ("example",)), "num_sequences": num_requests, "output_len": max_tokens,
        "ignore_eos": ignore_eos, "seed": seed, **run,
    }  # fmt: skip
    validated(BenchConfig, fields, name="bench serve")
    runs = RunTable(table)
    with nullcontext() if serve is None else own_server(_words(serve)) as started:
        first = str(url) if started is None else started.url
        wanted = [(first, api_key_env), *((peer, peer_api_key_env) for peer in peer_url or ())]
        addresses, configs = [], []
        for place, key_variable in wanted:
            where, _, model = place.partition("#")
            address = Address.of(where, key_variable)
            asked = {**load, "url": address.base, "model": chosen_model(address, model or None)}
            measured = {**fields, "target": asked["model"], "load": asked}
            configs.append(validated(BenchConfig, measured, name="bench serve"))
            addresses.append(address)
        said = shlex.join(["ssd-lab", *sys.argv[1:]])
        results = run_load(configs, addresses, command=said, progress=show_progress())
    names = [name, *(_label(config) for config in configs[1:])]
    ids = [runs.add(result, group=group, name=each) for result, each in zip(results, names, strict=True)]
    if json_:
        shown = zip(ids, names, results, strict=True)
        print_json([{"id": id_, "name": each, "group": group, **result.as_dict()} for id_, each, result in shown])
    else:
        _show(results, ids, table)
    if any(all(each.error is not None for each in repeat.requests) for repeat in _repeats(results)):
        raise typer.Exit(FAILED)


def _show(results: list[Any], ids: list[int], table: Path) -> None:
    """Figures down and servers across, a table for each data set; then what must be known of them."""
    from rich.text import Text

    from ssd_lab.bench.texts import figures_table

    out = console()
    for dataset in results[0].datasets:
        columns = {
            f"{id_}: {_label(result.config)}": result.datasets[dataset].estimates
            for id_, result in zip(ids, results, strict=True)
        }
        found = figures_table(columns)
        out.print(folded(found.columns, found.rows, title=f"{dataset}, {results[0].config.load.how}"))
    for id_, result in zip(ids, results, strict=True):
        for note in result.notes:
            out.print(Text(f"note on {id_}: {note}", style="yellow"), soft_wrap=True)
    out.print(f"runs {', '.join(map(str, ids))} of {table}", soft_wrap=True, markup=False)


def _label(config: BenchConfig) -> str:
    assert config.load is not None
    return f"{config.load.model} at {config.load.url.partition('://')[2].removesuffix('/v1')}"


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--serve {text!r}: {error}") from error


def _repeats(results: list[Any]) -> list[Any]:
    return [repeat for result in results for dataset in result.datasets.values() for repeat in dataset.repeats]
