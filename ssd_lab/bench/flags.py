"""The flags of `ssd-lab bench`, each declared once: its names, type, default and meaning.

Names and defaults are the reference's; clearer names stand beside them and mean the same.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssd_lab.bench.store import DEFAULT_TABLE
from ssd_lab.config import DtypeName
from ssd_lab.errors import ConfigError

Size = Literal["0.6", "1", "1.7", "3", "4", "8", "14", "32", "70"]


def _flag(group: str, default: Any, *names: str, help: str, **limits: Any) -> Any:  # noqa: A002
    return Field(default, description=help, json_schema_extra={"names": list(names), "group": group}, **limits)


_model, _strategy, _engine, _prompt, _measure, _output = (
    partial(_flag, group) for group in ("Models", "Strategy", "Engine", "Prompts and lengths", "Measuring", "Output")
)


class Flags(BaseModel):
    """A command line, or one entry of a YAML file of runs, before its parts are put together."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    size: Size = _model("70", "--size", help="the target's size in billions of parameters")
    llama: bool = _model(False, "--llama", help="Llama models (this is the default)")
    qwen: bool = _model(False, "--qwen", help="Qwen3 models")
    draft: str | None = _model(None, "--draft", help="the draft: a size, or a place (default: the family's smallest)")
    target: str | None = _model(None, "--target", help="the target by hub id, folder or .gguf file, instead of --size")
    draft_model: str | None = _model(None, "--draft-model", help="the draft by hub id, folder or .gguf file")
    models: Literal["bundled"] | None = _model(
        None, "--models", help="`bundled`: the pair that comes with the package, whatever the size says"
    )
    geometry: str | None = _model(
        None, "--geometry", help="a published model's shape with inflated weights: llama-8b, qwen3-32b, ..."
    )

    spec: bool = _strategy(False, "--spec", help="speculative decoding (alone: the draft and the target in turn)")
    async_: bool = _strategy(False, "--async", help="asynchronous speculation, with --spec")
    eagle: bool = _strategy(False, "--eagle", help="EAGLE3 drafting with the target's published head; implies --spec")
    k: int = _strategy(6, "--k", ge=1, help="draft tokens verified in one round")
    f: int = _strategy(3, "--f", ge=1, help="outcomes prepared at each accepted length, with --async")
    fl: list[int] | None = _strategy(None, "--fl", help="fan-out list of k + 1 numbers, instead of --f")
    flh: list[int] | None = _strategy(None, "--flh", help="fan-out list of rounds that began with a hit")
    flm: list[int] | None = _strategy(None, "--flm", help="fan-out list of rounds that began with a miss, same sum")
    backup: Literal["jit", "fast"] = _strategy("jit", "--backup", "--fallback", help="what answers a miss")
    x: float | None = _strategy(None, "--x", "--saguaro-c", ge=0, help="Saguaro sampling's factor (1: off)")
    strategy: str | None = _strategy(
        None, "--strategy", "-s", help='by name, with fields: "async_tree f=2", instead of --spec, --async, --eagle'
    )
    import_: list[str] | None = _strategy(None, "--import", help="modules that register strategies of yours")

    gpus: int = _engine(1, "--gpus", "--num-gpus", ge=1, help="GPUs in all; with --async the last one drafts")
    eager: bool = _engine(False, "--eager", help="without CUDA graphs")
    b: int = _engine(1, "--b", "--batch", ge=1, help="sequences decoded together")
    block_sz: int = _engine(256, "--block_sz", "--block-size", ge=1, help="tokens in one KV block")
    max_model_len: int = _engine(8192, "--max_model_len", "--max-model-len", ge=2, help="longest prompt + output")
    device: str | None = _engine(None, "--device", help="auto, cpu, cuda or cuda:N (--size: cuda, else auto)")
    dtype: DtypeName = _engine("auto", "--dtype", help="auto, float32, bfloat16 or float16")
    threads: int | None = _engine(None, "--threads", ge=1, help="CPU threads of the target")
    draft_link: Literal["auto", "inline", "thread", "process"] = _engine(
        "auto", "--draft-link", help="where an asynchronous draft runs"
    )

    dataset: list[str] | None = _prompt(
        None, "--dataset", "--datasets", help="sets, or .txt and .jsonl files of yours (gsm8k)"
    )
    humaneval: bool = _prompt(False, "--humaneval", help="HumanEval instead of GSM8K")
    alpaca: bool = _prompt(False, "--alpaca", help="Alpaca instead of GSM8K")
    c4: bool = _prompt(False, "--c4", help="C4 instead of GSM8K")
    ultrafeedback: bool = _prompt(False, "--ultrafeedback", help="UltraFeedback instead of GSM8K")
    all: bool = _prompt(False, "--all", help="--numseqs of each of HumanEval, Alpaca, GSM8K and UltraFeedback")
    random: bool = _prompt(False, "--random", help="random tokens, --input_len each")
    example: bool = _prompt(False, "--example", help="canned prompts (8 unless --numseqs says less); prints the texts")
    numseqs: int = _prompt(128, "--numseqs", "--num-sequences", ge=1, help="prompts of each set")
    prompt_offset: int = _prompt(0, "--prompt_offset", "--prompt-offset", ge=0, help="prompts of each set to skip")
    input_len: int = _prompt(128, "--input_len", "--input-len", ge=1, help="longest prompt in tokens; the rest is cut")
    output_len: int = _prompt(512, "--output_len", "--output-len", ge=1, help="tokens generated for each request")
    chat_template: bool = _prompt(False, "--chat_template", "--chat", help="wrap prompts in the chat template")
    temp: float = _prompt(0.0, "--temp", "--temperature", ge=0, help="0 is greedy")
    dtemp: float | None = _prompt(None, "--dtemp", "--draft-temperature", ge=0, help="the draft's (default: --temp)")
    seed: int = _prompt(0, "--seed", help="of random prompts and of sampling")

    repeats: int = _measure(1, "--repeats", ge=1, help="times that all prompts are run; intervals need two")
    precision: float | None = _measure(
        None, "--precision", gt=0, lt=1, help="go on until the interval's half width is this share of the mean (0.05)"
    )
    max_repeats: int = _measure(30, "--max-repeats", ge=1, help="where --precision stops at the latest")
    warmup: int = _measure(1, "--warmup", ge=0, help="short passes that do not count")
    no_warm_up: bool = _measure(False, "--no-warm-up", help="on a GPU: capture and compile while measuring, marked")
    max_steps: int | None = _measure(None, "--max-steps", "--max_steps", ge=1, help="end each repeat after N steps")
    peer: list[str] | None = _measure(None, "--peer", help="`transformers`: the same prompts there, side by side")
    quality: bool = _measure(False, "--quality", help="score the answers to GSM8K and HumanEval")
    unguarded: bool = _measure(False, "--unguarded", help="run HumanEval's programs also where no sandbox works")

    verbose: bool = _output(False, "--verbose", help="one line for each round: drafted, accepted, recovery")
    debug: bool = _output(False, "--debug", help="save every round and the prompts' ids beside the table")
    name: str | None = _output(None, "--name", help="the run's name, in the table and in W&B")
    group: str | None = _output(None, "--group", help="the run's group, in the table and in W&B")
    wandb: bool = _output(False, "--wandb", help="log to Weights & Biases")
    sweep: str | None = _output(None, "--sweep", help='JSON: [{"temp": 0.7, "b": 4, "name": ...}] or {"k": [2, 4]}')
    runs: Path | None = _output(None, "--runs", help="a YAML file: a list of runs, each with flags by name")
    in_turns: bool = _output(False, "--in-turns", help="--runs take turns, repeat by repeat")
    workers: Literal["local", "ray"] = _output("local", "--workers", help="where a sweep's cells run")
    table: Path = _output(DEFAULT_TABLE, "--table", help="the SQLite file that results go to")
    json_: bool = _output(False, "--json", help="one JSON document on stdout and nothing else")

    def given(self, *fields: str) -> list[str]:
        """Which of these were given, by the name they have on the command line; what says `no` counts as not given."""
        return [first_name(field) for field in fields if field in self.model_fields_set and getattr(self, field)]


def names_of(field: str) -> list[str]:
    """Every name of a flag on the command line."""
    extra: Any = Flags.model_fields[field].json_schema_extra
    return list(extra["names"])


def first_name(field: str) -> str:
    """The name of a flag that the reference gives it, such as `--async`."""
    return names_of(field)[0]


def parse_flags(arguments: Sequence[str]) -> Flags:
    """A command line. Raises ConfigError that names the nearest flag, or what a value must be."""
    return make_flags(vars(_parser().parse_args(list(arguments))))


def make_flags(values: dict[str, Any], place: str = "") -> Flags:
    """Flags from values by field name or by any of the flag's names, dashes or not; place: where they come from."""
    fields: dict[str, Any] = {}
    known = {name.strip("-").replace("-", "_"): field for field in Flags.model_fields for name in names_of(field)}
    for name, value in values.items():
        field = name if name in Flags.model_fields else known.get(str(name).strip("-").replace("-", "_"))
        if field is None:
            raise ConfigError(f"{place}{_unknown(str(name), list(known))}")
        if field in fields:
            raise ConfigError(f"{place}{first_name(field)} was given twice, once as {name!r}")
        fields[field] = value
    try:
        return Flags(**fields)
    except ValidationError as error:
        raise ConfigError(place + "; ".join(_explain(detail) for detail in error.errors())) from error


def help_text() -> str:
    """What `--help` shows."""
    return _parser().format_help()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            unknown = message.removeprefix("unrecognized arguments: ").split()[0]
            known = [name for field in Flags.model_fields for name in names_of(field)]
            message = _unknown(unknown, known)
        raise ConfigError(message)


def _parser() -> _Parser:
    parser = _Parser(prog="ssd-lab bench", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.description = "Measure a strategy on real prompts. Flags of the reference's bench.py mean the same here."
    groups: dict[str, Any] = {}
    for field, info in Flags.model_fields.items():
        extra: Any = info.json_schema_extra
        group = groups.setdefault(extra["group"], None) or parser.add_argument_group(extra["group"])
        groups[extra["group"]] = group
        about = f"{info.description}".replace("%", "%%")
        if info.annotation is bool:
            group.add_argument(*extra["names"], dest=field, action="store_true", help=about)
            continue
        shown = "" if info.default is None else f" ({info.default})"
        many = "list" in str(info.annotation)
        options: dict[str, Any] = {"nargs": "+", "action": "extend"} if many else {}
        group.add_argument(
            *extra["names"], dest=field, metavar=_metavar(info.annotation), help=about + shown, **options
        )
    return parser


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "{" + ",".join(annotation.__args__) + "}"
    text = str(annotation)
    return "N" if "int" in text else "X" if "float" in text else "FILE" if "Path" in text else "TEXT"


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"unknown flag {name!r}" + (
        f": did you mean {near[0]!r}?" if near else "; `ssd-lab bench --help` lists them"
    )


def _explain(detail: Any) -> str:
    field = str(detail["loc"][0])
    return f"{first_name(field)} {detail['input']}: {detail['msg'].removeprefix('Value error, ')}"
