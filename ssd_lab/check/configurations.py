"""What there is to check: every strategy with every value of its components, made from the schemas alone.

A field that holds a component (a fan-out schedule, a fallback, a tree, a mode) is an axis, and all axes of a strategy
are crossed. Switches and numbers (`dynamic_lookahead`, `saguaro_c`) are knobs: they are spread over the crossed rows so
that every pair of values occurs somewhere. A new strategy, or a new kind of component, enters by itself.
"""

from __future__ import annotations

import itertools
import json
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ssd_lab.check.subjects import Subject
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.strategies.components.kinds import OpenKinds

Fields = dict[str, Any]
# small, so that a round is quick, everything happens often, and explicit lists (k + 1 numbers) fit
SIZES: Fields = {"k": 3, "budget": 8, "top_k": 3, "depth": 3, "num_nodes": 8}
# values besides the default, of fields whose type does not list its values
VALUES: dict[str, list[Any]] = {
    "saguaro_c": [0.5, 0.0],
    "draft_temperature": [0.5, 0.0],
    "explicit.hit": [[3, 2, 2, 1]],
    "explicit.miss": [[1, 2, 2, 3]],
    "fixed.widths": [[3, 2, 1]],
    "fixed.paths": [[[0], [1], [2], [0, 0], [0, 1], [1, 0]]],
}
_UNSET = object()  # the field is left to its default


@dataclass(frozen=True)
class Configuration:
    """A strategy and the fields that are given to it."""

    strategy: str
    fields: Fields

    @property
    def label(self) -> str:
        """As it is written on the command line."""
        return " ".join([self.strategy, *(f"{name}={_text(value)}" for name, value in self.fields.items())])

    @property
    def subject(self) -> Subject:
        """What is run."""
        return Subject(self.label, registry.config(self.strategy, self.fields), self.fields)


@dataclass(frozen=True)
class Refusal:
    """Combinations that a strategy refuses for one reason: the first of them, and how many."""

    example: Configuration
    reason: str
    count: int


@dataclass
class Configurations:
    """accepted: what can be run. refused: what the strategies do not allow. missing: strategies, components and values
    of the schemas that are in no accepted configuration, so that nothing is left out unnoticed.
    """

    accepted: list[Configuration] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def configurations(
    known: Mapping[str, type[StrategyConfig]] | None = None, given: Mapping[str, Fields] | None = None
) -> Configurations:
    """All of them, for these strategies (None: every registered one). given: fields that stay as they are, by name."""
    found = Configurations()
    for name, strategy in (registry.all() if known is None else known).items():
        _Strategy(name, strategy, (given or {}).get(name, {})).add_to(found)
    return found


class _Strategy:
    """One strategy's fields to vary: axes hold components or modes, nested ones strategies, knobs anything else."""

    def __init__(self, name: str, strategy: type[StrategyConfig], given: Fields) -> None:
        self._name, self._strategy = name, strategy
        self._given = given
        self._base = {**_sizes(strategy), **given}
        self._crossed: dict[str, list[Any]] = {}
        self._nested: dict[str, list[Any]] = {}
        self._knobs: dict[str, list[Any]] = {}
        self._made: dict[tuple[str, int], BaseModel] = {}  # of each component among these values, validated once
        for own, info in strategy.model_fields.items():
            options = [] if own in self._base else _options(own, info)
            leaves = list(_leaves_of(info))
            if all(value is _UNSET for value in options):
                continue
            if any(_is_strategy(leaf) for leaf in leaves):
                self._nested[own] = options
            elif any(_is_component(leaf) or get_origin(leaf) is Literal for leaf in leaves):
                self._crossed[own] = options
            else:
                self._knobs[own] = options

    def add_to(self, found: Configurations) -> None:
        """Validate every combination and choose."""
        if not self._strategy.exact:
            found.refused.append(Refusal(Configuration(self._name, {}), "it declares exact = False", 1))
            return
        valid: list[list[Fields]] = []
        refusals: dict[str, list[Fields]] = defaultdict(list)
        for row in self._rows():
            tried = self._tried({**self._base, **row})
            if all(problem for _, problem in tried):  # a size may belong to a choice that this row does not take
                tried = self._tried({**row, **self._given})
            for fields, problem in tried:
                if problem:
                    refusals[problem].append(fields)
            valid.append([fields for fields, problem in tried if not problem])
        chosen = self._covering([some for some in valid if some])
        found.accepted += [Configuration(self._name, fields) for fields in chosen]
        found.refused += [
            Refusal(Configuration(self._name, some[0]), reason, len(some)) for reason, some in refusals.items()
        ]
        seen = {(own, _kind(value)) for fields in chosen for own, value in fields.items()}
        options = {**self._crossed, **self._nested, **self._knobs}
        wanted = {(own, _kind(value)) for own, values in options.items() for value in values if value is not _UNSET}
        found.missing += [f"{self._name} {own}={value}" for own, value in sorted(wanted - seen)]
        found.missing += [] if chosen else [self._name]

    def _rows(self) -> Iterator[Fields]:
        """Axes crossed; of the strategies within strategies one at a time."""
        required = {own: values[0] for own, values in self._nested.items() if values[0] is not _UNSET}
        for row in _product(self._crossed):
            yield {**row, **required}
            for own, values in self._nested.items():
                yield from ({**row, **required, own: value} for value in values if value is not _UNSET)

    def _tried(self, row: Fields) -> list[tuple[Fields, str]]:
        """The row with all values of the knobs, each with what the strategy has against it."""
        combinations = [{**row, **knobs} for knobs in _product(self._knobs)]
        return [(fields, self._problem(fields)) for fields in combinations]

    def _problem(self, fields: Fields) -> str:
        """What the strategy has against these fields, empty if nothing."""
        parts = {own: (own, id(value)) for own, value in fields.items() if isinstance(value, dict)}
        known = {own: self._made[part] for own, part in parts.items() if part in self._made}
        try:
            made = self._strategy(**{**fields, **known})
        except ValidationError as error:
            return "; ".join(sorted({problem["msg"].removeprefix("Value error, ") for problem in error.errors()}))
        self._made |= {part: getattr(made, own) for own, part in parts.items() if own not in known}
        return ""

    def _covering(self, rows: list[list[Fields]]) -> list[Fields]:
        """One of each row at least, chosen greedily so that every pair of values with a knob in it occurs."""
        every = list(itertools.chain(*rows))
        missing = {pair for fields in every for pair in self._pairs(fields)}
        chosen: list[Fields] = []
        while rows[len(chosen) :] or missing:
            some = rows[len(chosen)] if len(chosen) < len(rows) else every
            chosen.append(max(some, key=lambda fields: len(missing & self._pairs(fields))))
            missing -= self._pairs(chosen[-1])
        return chosen

    def _pairs(self, fields: Fields) -> set[tuple[tuple[str, str], tuple[str, str]]]:
        """Values of knobs beside each other and beside those of axes; what is not given counts as a value."""
        own = [(name, _text(fields.get(name))) for name in (*self._crossed, *self._nested, *self._knobs)]
        pairs = itertools.combinations_with_replacement(own, 2)
        return {(a, b) for a, b in pairs if a[0] in self._knobs or b[0] in self._knobs}


def _options(name: str, info: FieldInfo, component: str = "") -> list[Any]:
    """Values to try for a field of a strategy, or of this component; its default stands as _UNSET."""
    values: list[Any] = [] if info.is_required() else [_UNSET]
    for leaf in _leaves_of(info):
        if get_origin(leaf) is Literal and len(get_args(leaf)) > 1:
            values += [value for value in get_args(leaf) if value != info.default]
        elif leaf is bool:
            values.append(not info.default)
        elif _is_strategy(leaf):
            values += [fields for other, cls in registry.all().items() for fields in _inner(other, cls)]
        elif _is_component(leaf):
            default = info.default.model_dump(exclude_defaults=True) if isinstance(info.default, leaf) else None
            values += [fields for fields in _variants(leaf) if default is None or fields != {**default, **_base(leaf)}]
    values += VALUES.get(f"{component}.{name}" if component else name, [])
    return values or [_UNSET]  # for a required field without a known value the strategy itself says what is missing


def _inner(name: str, strategy: type[StrategyConfig]) -> Iterator[Fields]:
    """A strategy within another one: as it is, and in each of its modes (fields that list their values)."""
    plain = {"strategy": name, **_sizes(strategy)}
    yield plain
    for own, info in strategy.model_fields.items():
        if get_origin(info.annotation) is Literal:
            yield from ({**plain, own: value} for value in get_args(info.annotation) if value != info.default)


def _variants(component: type[BaseModel]) -> list[Fields]:
    """A component with all its own choices crossed."""
    base = _base(component)
    own = {
        name: _options(name, info, base["kind"]) for name, info in component.model_fields.items() if name not in base
    }
    return [{**base, **fields} for fields in _product(own)]


def _base(component: type[BaseModel]) -> Fields:
    """Its kind, and the sizes that it has."""
    return {"kind": get_args(component.model_fields["kind"].annotation)[0], **_sizes(component)}


def _product(options: Mapping[str, Iterable[Any]]) -> Iterator[Fields]:
    for values in itertools.product(*options.values()):
        yield {name: value for name, value in zip(options, values, strict=True) if value is not _UNSET}


def _sizes(model: type[BaseModel]) -> Fields:
    return {name: SIZES[name] for name in model.model_fields if name in SIZES}


def _leaves_of(info: FieldInfo) -> Iterator[Any]:
    """Those of a field, kinds that were registered for it among them."""
    yield from _leaves(info.annotation)
    yield from _registered(info.metadata)


def _registered(metadata: Iterable[Any]) -> Iterator[type[BaseModel]]:
    for each in metadata:
        if isinstance(each, OpenKinds):
            yield from each.classes


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types that a field may hold, unions and annotations taken apart."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield from _leaves(inner)
        yield from _registered(metadata)
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _leaves(part)
    elif annotation is not type(None):
        yield annotation


def _is_component(leaf: Any) -> bool:
    return isinstance(leaf, type) and issubclass(leaf, BaseModel) and "kind" in leaf.model_fields


def _is_strategy(leaf: Any) -> bool:
    return isinstance(leaf, type) and issubclass(leaf, StrategyConfig)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _kind(value: Any) -> str:
    """What a value is called where details do not matter."""
    return str(value.get("kind", value.get("strategy"))) if isinstance(value, dict) else _text(value)
