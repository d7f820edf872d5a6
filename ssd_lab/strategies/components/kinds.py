"""Components of one's own: further kinds for a field that holds one of several, beside those that are built in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ssd_lab.errors import ConfigError

Component = TypeVar("Component", bound=type[BaseModel])


class OpenKinds:
    """Classes by their `kind`. Stands in the annotation of a field whose own union it opens: fields, JSON schema,
    command line and the grid of checks then know the registered kinds too.

    what: how errors call it. base: what a class must derive from. built_in: kinds that are taken.
    """

    def __init__(self, what: str, base: type[BaseModel], built_in: tuple[str, ...]) -> None:
        self._what, self._base, self._built_in = what, base, built_in
        self._classes: dict[str, type[BaseModel]] = {}

    @property
    def classes(self) -> tuple[type[BaseModel], ...]:
        """Those that were registered."""
        return tuple(self._classes.values())

    def register(self, component: Component) -> Component:
        """Add a class under its `kind`; use as a decorator. Another class of the same kind is refused; the same class
        again (a notebook cell run twice) replaces the old one.
        """
        field = getattr(component, "model_fields", {}).get("kind")
        named = get_args(field.annotation) if field is not None else ()
        if not issubclass(component, self._base) or len(named) != 1 or field is None or field.default != named[0]:
            raise ConfigError(
                f"{component.__name__} is no {self._what}: derive from {self._base.__name__} and give it a field "
                f'kind: Literal["its_name"] = "its_name"'
            )
        kind = named[0]
        known = self._classes.get(kind)
        taken = known is not None and (known.__module__, known.__qualname__) != (
            component.__module__,
            component.__qualname__,
        )
        if kind in self._built_in or taken:
            raise ConfigError(f"a {self._what} of the kind {kind!r} is there already: choose another name")
        self._classes[kind] = component
        return component

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        built_in = handler(source)

        def validated(value: Any, inner: Callable[[Any], Any]) -> Any:
            if isinstance(value, self.classes):
                return value
            own = self._classes.get(str(value.get("kind"))) if isinstance(value, Mapping) else None
            return inner(value) if own is None else own.model_validate(value)

        def dumped(value: Any, inner: Callable[[Any], Any], info: Any) -> Any:
            if isinstance(value, self.classes):
                return value.model_dump(mode=info.mode, exclude_defaults=info.exclude_defaults)
            return inner(value)

        return core_schema.no_info_wrap_validator_function(
            validated,
            built_in,
            serialization=core_schema.wrap_serializer_function_ser_schema(dumped, info_arg=True, schema=built_in),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        told = handler(schema)
        return {
            **told,
            "oneOf": [*told.get("oneOf", []), *(handler(each.__pydantic_core_schema__) for each in self.classes)],
        }
