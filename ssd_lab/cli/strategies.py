"""`ssd-lab strategies`: what there is, and what each can be told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.output import console, folded, print_json

if TYPE_CHECKING:
    from ssd_lab.strategies import StrategyConfig


def command(
    name: Annotated[str | None, typer.Argument(help="Show this one.", show_default=False)] = None,
    import_: options.Import = None,
    json_: options.Json = False,
) -> None:
    """Print a table, or JSON schemas."""
    options.imported(import_)

    from ssd_lab.strategies import registry

    known = registry.all()
    if name is not None and name not in known:
        registry.config(name, {})  # raises, with the nearest names
    chosen = known if name is None else {name: known[name]}
    if json_:
        print_json({key: describe(strategy) for key, strategy in chosen.items()})
    elif name is None:
        console().print(_overview(known))
    else:
        console().print(_one(chosen[name]))


def describe(strategy: type[StrategyConfig]) -> dict[str, Any]:
    """What a program needs to know of a strategy; null: it follows from the fields, as of one around another."""
    return {
        "summary": _summary(strategy),
        "exact": _constant(strategy.exact),
        "needs_draft": _constant(strategy.needs_draft),
        "module": strategy.__module__,
        "schema": strategy.model_json_schema(),
    }


def _constant(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _summary(strategy: type[StrategyConfig]) -> str:
    return " ".join((strategy.__doc__ or "").split("\n\n")[0].split())


def _overview(known: dict[str, type[StrategyConfig]]) -> Any:
    columns = ("strategy", "what it does", "draft model", "exact", "fields")
    rows = [
        (
            name,
            _summary(strategy),
            "yes" if strategy.needs_draft else "no",
            "yes" if strategy.exact else "NO",
            ", ".join(strategy.model_fields) or "-",
        )
        for name, strategy in known.items()
    ]
    return folded(columns, rows, left=len(columns))


def _one(strategy: type[StrategyConfig]) -> Any:
    from rich.console import Group
    from rich.text import Text

    rows = []
    for name, schema in strategy.model_json_schema().get("properties", {}).items():
        default = strategy.model_fields[name]
        shown = "required" if default.is_required() else _typed(default.get_default(call_default_factory=True))
        rows.append((name, shown, _allowed(schema), schema.get("description", "")))
    lead = Text.assemble((strategy.strategy_name, "bold"), f": {_summary(strategy)}")
    fields = folded(("field", "default", "allowed", "meaning"), rows, left=4) if rows else Text("It has no fields.")
    nested = [(name, allowed.split()[0]) for name, _, allowed, _ in rows if "{...}" in allowed]
    how = [f"{{...}}: fields of its own, set with dots, such as --set {n}.kind={kind}" for n, kind in nested[:1]]
    return Group(lead, fields, *map(Text, how))


def _typed(value: Any) -> str:
    """A default as one would type it."""
    from pydantic import BaseModel

    if not isinstance(value, BaseModel):
        return "none" if value is None else json.dumps(value) if isinstance(value, bool) else str(value)
    given = value.model_dump(mode="json")
    return str(given["kind"]) if given.keys() == {"kind"} else json.dumps(given)


def _allowed(schema: dict[str, Any]) -> str:
    """A field's type and bounds in few words."""
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "oneOf" in schema or "$ref" in schema:
        kinds = schema.get("discriminator", {}).get("mapping", {})
        places = [option.get("$ref", option.get("title", "any")) for option in schema.get("oneOf", [schema])]
        # those that users registered are in no mapping
        registered = [place.rsplit("/", 1)[-1].lower() for place in places if place not in kinds.values()]
        return " or ".join(f"{kind} {{...}}" for kind in [*kinds, *registered])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    return f"{schema.get('type', 'any')} {options.bounds(schema)}".rstrip()
