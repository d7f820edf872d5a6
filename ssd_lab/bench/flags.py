"""The flags of `ssd-lab bench`: the fields of a run's config, and what the reference says in one flag for several.

Names and defaults are the reference's; clearer names stand beside them and mean the same.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_origin

from pydantic import ConfigDict, Field, ValidationError, field_validator

from ssd_lab.bench.config import REFERENCE_NAMES, BenchConfig, is_prompt_file
from ssd_lab.bench.data import find_dataset
from ssd_lab.bench.store import DEFAULT_TABLE
from ssd_lab.errors import ConfigError

Size = Literal["0.6", "1", "1.7", "3", "4", "8", "14", "32", "70"]
GROUPS = {  # as `--help` shows them
    "Models": "size llama qwen draft target draft_model models geometry",
    "Strategy": "spec async_ eagle k f fl flh flm backup x strategy import_",
    "Engine": "num_gpus placement eager batch block_size max_model_len device dtype threads draft_link prefix_reuse "
    "bitwise",
    "Prompts and lengths": "datasets prompt_file humaneval alpaca c4 ultrafeedback all random example num_sequences "
    "prompt_offset input_len output_len ignore_eos chat temperature draft_temperature seed",
    "Measuring": "repeats precision max_repeats warmup warm_up max_steps record peers quality unguarded",
    "Output": "verbose debug name group wandb sweep runs in_turns workers table json_",
}
FIELDS = tuple(field for fields in GROUPS.values() for field in fields.split())
_FIRST_NAMES = {field: f"--{name}" for name, field in REFERENCE_NAMES.items()} | {
    "datasets": "--dataset", "peers": "--peer",
    **{field: f"--{field}" for field in ("max_model_len", "prompt_offset", "input_len", "output_len")},
}  # fmt: skip
_LAST_NAMES = {"backup": "--fallback", "x": "--saguaro-c", "strategy": "-s", "max_steps": "--max_steps"}


class Flags(BenchConfig):
    """A command line, or one entry of a YAML file of runs, before its parts are put together."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    size: Size = Field("70", description="the target's size in billions of parameters")
    llama: bool = Field(False, description="Llama models (this is the default)")
    qwen: bool = Field(False, description="Qwen3 models")
    draft: str | None = Field(None, description="the draft: a size, or a place (default: the family's smallest)")
    target: str = Field("", description="the target by hub id, folder or .gguf file, instead of --size")
    draft_model: str | None = Field(None, description="the draft by hub id, folder or .gguf file")
    models: Literal["bundled"] | None = Field(
        None, description="the pair that comes with the package, whatever the size says"
    )
    geometry: str | None = Field(
        None, description="a published model's shape with inflated weights: llama-8b, qwen3-32b, ..."
    )

    spec: bool = Field(False, description="speculative decoding (alone: the draft and the target in turn)")
    async_: bool = Field(False, description="asynchronous speculation, with --spec")
    eagle: bool = Field(False, description="EAGLE3 drafting with the target's published head; implies --spec")
    k: int = Field(6, ge=1, description="draft tokens verified in one round")
    f: int = Field(3, ge=1, description="outcomes prepared at each accepted length, with --async")
    fl: list[int] | None = Field(None, description="fan-out list of k + 1 numbers, instead of --f")
    flh: list[int] | None = Field(None, description="fan-out list of rounds that began with a hit")
    flm: list[int] | None = Field(None, description="fan-out list of rounds that began with a miss, same sum")
    backup: Literal["jit", "fast"] = Field("jit", description="what answers a miss")
    x: float | None = Field(None, ge=0, description="Saguaro sampling's factor (1: off)")
    strategy: str = Field("", description='by name, with fields: "async_tree f=2", instead of --spec, --async, --eagle')
    import_: list[str] | None = Field(None, description="modules that register strategies of yours")

    device: str = Field("", description="auto, cpu, cuda or cuda:N (--size: cuda, else auto)")
    prompt_file: str | None = Field(
        None,
        description="prompts of yours instead of GSM8K, .txt (one a line) or .jsonl; --input_len cuts them, else none, "
        "and texts end at their end-of-text token, unless --ignore-eos",
    )
    humaneval: bool = Field(False, description="HumanEval instead of GSM8K")
    alpaca: bool = Field(False, description="Alpaca instead of GSM8K")
    c4: bool = Field(False, description="C4 instead of GSM8K")
    ultrafeedback: bool = Field(False, description="UltraFeedback instead of GSM8K")
    all: bool = Field(False, description="--numseqs of each of HumanEval, Alpaca, GSM8K and UltraFeedback")
    example: bool = Field(False, description="canned prompts (8 unless --numseqs says less); prints the texts")

    verbose: bool = Field(False, description="one line for each round: drafted, accepted, recovery")
    debug: bool = Field(False, description="save every round and the prompts' ids beside the table")
    name: str | None = Field(None, description="the run's name, in the table and in W&B")
    group: str | None = Field(None, description="the run's group, in the table and in W&B")
    wandb: bool = Field(False, description="log to Weights & Biases")
    sweep: str | None = Field(
        None, description='JSON: [{"temp": 0.7, "b": 4, "name": ...}] or {"k": [2, 4]}, or a file of it'
    )
    runs: Path | None = Field(None, description="a YAML file: a list of runs, each with flags by name")
    in_turns: bool = Field(False, description="--runs take turns, repeat by repeat")
    workers: Literal["local", "ray"] = Field("local", description="where a sweep's cells run")
    table: Path = Field(DEFAULT_TABLE, description="the SQLite file that results go to")
    json_: bool = Field(False, description="one JSON document on stdout and nothing else")

    @field_validator("datasets")
    @classmethod
    def _names_of_sets(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """`MT-bench` is mt_bench."""
        return tuple(name if is_prompt_file(name) else find_dataset(name).name for name in names)

    def given(self, *fields: str) -> list[str]:
        """Which of these were given, by the name they have on the command line; what says `no` counts as not given."""
        return [first_name(field) for field in fields if field in self.model_fields_set and getattr(self, field)]


def names_of(field: str) -> list[str]:
    """Every name of a flag on the command line; that of a field which is on at first switches it off."""
    off = "no-" if Flags.model_fields[field].default is True else ""
    own = f"--{off}{field.strip('_').replace('_', '-')}"
    return list(dict.fromkeys([_FIRST_NAMES.get(field, own), own, _LAST_NAMES.get(field, own)]))


def first_name(field: str) -> str:
    """The name of a flag that the reference gives it, such as `--async`."""
    return names_of(field)[0]


def parse_flags(arguments: Sequence[str]) -> Flags:
    """A command line. Raises ConfigError that names the nearest flag, or what a value must be."""
    return make_flags(vars(_parser().parse_args(list(arguments))))


def make_flags(values: dict[str, Any], place: str = "") -> Flags:
    """Flags from values by field name or by any of the flag's names, dashes or not; place: where they come from."""
    fields: dict[str, Any] = {}
    known = {_bare(name): field for field in FIELDS for name in names_of(field)}
    for name, value in values.items():
        field = name if name in FIELDS else known.get(_bare(str(name)))
        if field is None:
            raise ConfigError(f"{place}{_unknown(str(name), list(known))}")
        if field in fields:
            raise ConfigError(f"{place}{first_name(field)} was given twice, once as {name!r}")
        fields[field] = not value if _bare(str(name)).startswith("no_") else value
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
            message = _unknown(unknown, [name for field in FIELDS for name in names_of(field)])
        raise ConfigError(message)


def _parser() -> _Parser:
    parser = _Parser(prog="ssd-lab bench", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.description = "Measure a strategy on real prompts. Flags of the reference's bench.py mean the same here."
    for title, fields in GROUPS.items():
        group = parser.add_argument_group(title)
        for field in fields.split():
            group.add_argument(*names_of(field), dest=field, **_argument(field))
            if Flags.model_fields[field].default is True:  # where another flag switches it off
                on = f"--{field.replace('_', '-')}"
                group.add_argument(on, dest=field, action="store_true", help=argparse.SUPPRESS)
    return parser


def _argument(field: str) -> dict[str, Any]:
    info = Flags.model_fields[field]
    kind, default = str(info.annotation), info.default
    about = f"{info.description}".replace("%", "%%")
    if info.annotation is bool:
        return {"action": "store_false" if default is True else "store_true", "help": about}
    many = "list" in kind or "tuple" in kind
    shown = " ".join(default) if isinstance(default, tuple) else default
    return {
        "metavar": _metavar(info.annotation),
        "help": about if shown in (None, "") else f"{about} ({shown})",
        **({"nargs": "+", "action": "extend"} if many else {}),
    }


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
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{first_name(str(detail['loc'][0]))} {detail['input']}: {message}" if detail["loc"] else message


def _bare(name: str) -> str:
    return name.strip("-").replace("-", "_")
