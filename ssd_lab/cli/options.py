"""Options that several commands share, declared once: those of sampling and engine are the fields of their configs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer
from pydantic import BaseModel

from ssd_lab.cli.output import want_json
from ssd_lab.cli.prompts import read_prompts
from ssd_lab.common.parsing import merged
from ssd_lab.config import EngineConfig, SamplingParams

Command = Callable[..., None]
Group = dict[str, tuple[Any, Any]]  # an option's type, as typer reads it, and its default, by parameter
REQUIRED = inspect.Parameter.empty  # in place of a default
_AS_TEXT = ("placement",)  # fields with fields of their own, which read a text
_MODELS, _SAMPLING, _STRATEGY, _ENGINE = "Models", "Sampling", "Strategy", "Engine"


def of_field(model: type[BaseModel], name: str, *names: str, panel: str) -> Any:
    """The option for a field of a config: its meaning, its choices or bounds; the config itself checks the values.

    names: of the option, where they are not the field's.
    """
    field, schema = model.model_fields[name], _schema(model)["properties"][name]
    plain = name.replace("_", "-")
    switch = f"--{plain}/--no-{plain}" if field.default is True else f"--{plain}"
    limits = bounds(schema)
    return typer.Option(
        *(names or (switch,)),
        help=f"{field.description} ({limits})" if limits else field.description,
        metavar="|".join(schema["enum"]) if "enum" in schema else None,
        rich_help_panel=panel,
    )


@lru_cache(maxsize=8)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def bounds(schema: dict[str, Any]) -> str:
    """The least and the greatest value that a field's JSON schema allows: `1..1024`, `0..`, `above 0`, or nothing."""
    parts = [schema, *schema.get("anyOf", ())]
    above = next((part["exclusiveMinimum"] for part in parts if "exclusiveMinimum" in part), None)
    low = next((part["minimum"] for part in parts if "minimum" in part), None)
    high = next((part["maximum"] for part in parts if "maximum" in part), None)
    if above is not None:
        return f"above {above:g}" + ("" if high is None else f", at most {high:g}")
    return "" if low is None and high is None else f"{'' if low is None else low}..{'' if high is None else high}"


def _option(names: str, meaning: str, panel: str | None = None, **how: Any) -> Any:
    return typer.Option(*names.split(), help=meaning, rich_help_panel=panel, **how)


Prompts = Annotated[
    list[str] | None, typer.Argument(help="Prompts; - reads stdin, one a line. None: canned ones.", show_default=False)
]
PromptFile = Annotated[
    str | None, _option("--prompt-file", ".txt (one a line) or .jsonl (prompt or text); - is stdin.")
]
Limit = Annotated[int | None, _option("--limit", "Take the first so many prompts.", min=1)]
Target = Annotated[str | None, _option("--target", "Hub id, folder or .gguf file. None: bundled.", _MODELS)]
Draft = Annotated[str | None, _option("--draft", "Hub id, folder or .gguf file. None: bundled.", _MODELS)]
Chat = Annotated[
    bool | None, _option("--chat/--no-chat", "Wrap prompts in the chat template if there is one.", _MODELS)
]
Device = Annotated[str, of_field(EngineConfig, "device", panel=_ENGINE)]
Dtype = Annotated[str, of_field(EngineConfig, "dtype", panel=_ENGINE)]
MaxTokens = Annotated[int, of_field(SamplingParams, "max_tokens", "--max-tokens", "-n", panel=_SAMPLING)]
Seed = Annotated[int, _option("--seed", "Same seed, same text.", _SAMPLING)]
Strategy = Annotated[str, _option("--strategy -s", 'A name, or "name field=value ...".', _STRATEGY)]
Strategies = Annotated[
    list[str] | None, _option("--strategy -s", 'Repeatable; "async_tree f=1" sets fields.', _STRATEGY)
]
Lookahead = Annotated[int | None, _option("--k", "Draft tokens verified in one round.", _STRATEGY)]
FanOut = Annotated[int | None, _option("--f", "Outcomes prepared at each accepted length.", _STRATEGY)]
Fallback = Annotated[str | None, _option("--fallback", "What answers a miss: jit or fast.", _STRATEGY)]
_ANY_FIELD = "Any field of the strategy or the engine, JSON value; dots nest. Repeatable."
Set = Annotated[list[str] | None, _option("--set", _ANY_FIELD, _STRATEGY, metavar="NAME=VALUE")]
Import = Annotated[
    list[str] | None, _option("--import", "A module to import first: it registers your strategies.", _STRATEGY)
]
WarmUp = Annotated[
    bool, _option("--warm-up/--no-warm-up", "On a GPU: capture graphs and compile kernels before.", _ENGINE)
]
Repeats = Annotated[
    int | None,
    _option("--repeats", "Turns of each; speeds get intervals. None: by the time of the first.", _ENGINE, min=1),
]
Json = Annotated[bool, _option("--json", "One JSON document on stdout and nothing else.", callback=want_json)]
TraceFile = Annotated[Path | None, _option("--trace", "Save every round here (JSON lines; .gz compresses).")]


def of_config(model: type[BaseModel], panel: str, names: dict[str, tuple[str, ...]], *without: str) -> Group:
    """Options for all fields of a config. names: of those that have a short name, or another one than their field."""
    group: Group = {}
    for name, field in model.model_fields.items():
        if name not in without:
            kind = str if get_origin(field.annotation) is Literal or name in _AS_TEXT else field.annotation
            default = field.get_default(call_default_factory=True)
            option = of_field(model, name, *names.get(name, ()), panel=panel)
            group[name] = (Annotated[kind, option], None if default == [] else default)
    return group


PROMPTS: Group = {"prompts": (Prompts, None), "prompt_file": (PromptFile, None), "limit": (Limit, None)}
KNOBS: Group = {"k": (Lookahead, None), "f": (FanOut, None), "fallback": (Fallback, None)}
FIELDS: Group = {"set_": (Set, None), "import_": (Import, None)}
MODELS: Group = {"target": (Target, None), "draft": (Draft, None)}
CHAT: Group = {"chat": (Chat, None)}
SAMPLING = of_config(
    SamplingParams, _SAMPLING, {"temperature": ("--temperature", "-t"), "max_tokens": ("--max-tokens", "-n")}, "seed"
)
SEED: Group = {"seed": (Seed, 0)}
ENGINE = of_config(EngineConfig, _ENGINE, {"max_batch": ("--batch",)})
MAX_TOKENS: Group = {"max_tokens": SAMPLING["max_tokens"]}
DEVICE: Group = {name: ENGINE[name] for name in ("device", "dtype")}


def takes(*groups: Group, without: Sequence[str] = (), **defaults: Any) -> Callable[[Command], Command]:
    """Options of these groups for a command, whose first argument is then the values of those that were given.

    The values are by the names that the library has for them: `prompts` are read, modules of `--import` are imported,
    and the fields of `--set` stand beside the others. defaults: values of options that are not given, in place of the
    library's own. Raises ConfigError for a field that comes twice, as an option and by `--set`.
    """
    shared = {name: option for group in groups for name, option in group.items() if name not in without}

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter(name, keyword, annotation=kind, default=defaults.get(name, default))
            for name, (kind, default) in shared.items()
        ]
        context = inspect.Parameter("context", keyword, annotation=typer.Context)

        def run(context: typer.Context, **values: Any) -> None:
            mine = {each.name: values.pop(each.name) for each in own}
            command(_given(context, values, defaults), **mine)

        parameters = [context, *added, *(each.replace(kind=keyword) for each in own)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def imported(names: list[str] | None) -> None:
    """Import modules of the user's, whose strategies are known from then on."""
    if names:
        from ssd_lab.strategies.importing import import_strategies

        import_strategies(names)


def _given(context: typer.Context, values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    imported(values.pop("import_", None))
    assignments = values.pop("set_", None) or ()
    fields: dict[str, Any] = {}
    if "prompt_file" in values:
        places = (values.pop(name, None) for name in ("prompts", "prompt_file", "limit"))
        fields["prompts"] = read_prompts(*places)
    typed = {name for name in values if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    options = {name: value for name, value in values.items() if name in typed}
    return {**defaults, **fields, **merged(options, assignments)}
