"""The models that a server answers with: one target under several strategies, loaded once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssd_lab import demo
from ssd_lab.config import EngineConfig
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM
from ssd_lab.serve.errors import ApiError
from ssd_lab.strategies import registry
from ssd_lab.strategies.registry import listed

LONGEST_RETRY_S = 60


class Admission:
    """Counts the texts that one engine has taken, and refuses those that would wait too long. Of the event loop."""

    def __init__(self, max_batch: int, max_queue: int) -> None:
        self._max_batch, self._limit = max_batch, max_batch + max_queue
        self._mean_s = 1.0  # of recent requests
        self.under_way = 0

    def enter(self, count: int) -> None:
        """Take so many texts. Raises ApiError (429) that says when to come again."""
        if count > self._limit:
            raise ApiError(400, f"{count} texts were asked for at once, and {self._limit} is the most", param="n")
        if self.under_way + count > self._limit:
            waiting = max(0, self.under_way - self._max_batch)
            retry_s = min(LONGEST_RETRY_S, max(1, math.ceil(self._mean_s * (1 + waiting / self._max_batch))))
            raise ApiError(
                429,
                f"{self.under_way} texts are under way and {self._limit} is the most: come again in {retry_s} s",
                code="queue_full",
                headers={"Retry-After": str(retry_s)},
            )
        self.under_way += count

    def leave(self, count: int, took_s: float | None = None) -> None:
        """They have ended; took_s: from asking to the end, None if they never began."""
        self.under_way -= count
        if took_s is not None:
            self._mean_s += 0.1 * (took_s - self._mean_s)


@dataclass
class Served:
    """One engine under its names. names: in requests, the first is the one that answers say."""

    names: tuple[str, ...]
    llm: LLM
    admission: Admission
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def name(self) -> str:
        """The one that says which strategy it is."""
        return self.names[-1]

    def check_alive(self) -> None:
        """Raise ApiError (503) if the engine's thread has ended."""
        if not self.llm.is_alive:
            raise ApiError(503, f"the engine of {self.name} has ended: restart the server", code="engine_ended")

    def card(self, name: str) -> dict[str, Any]:
        """An entry of /v1/models."""
        strategy = self.llm.strategy
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "ssd_lab",
            "root": self.names[0].partition(":")[0],
            "max_model_len": self.llm.memory_plan.max_model_len,
            "strategy": {"name": strategy.strategy_name, **strategy.model_dump(mode="json")},
            "exact": strategy.exact,
        }


class ServedModels:
    """All of a server's models. Close it, or use it as a context manager."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models = list(models)
        self._by_name = {name: model for model in models for name in model.names}

    def __enter__(self) -> ServedModels:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Served]:
        return iter(self._models)

    def find(self, name: str) -> Served:
        """The model of that name. Raises ApiError (404) that names those there are."""
        if name not in self._by_name:
            known = ", ".join(self._by_name)
            raise ApiError(404, f"there is no model {name!r}: known are {known}", param="model", code="model_not_found")
        return self._by_name[name]

    def cards(self) -> list[dict[str, Any]]:
        """The entries of /v1/models."""
        return [model.card(name) for name, model in self._by_name.items()]

    @property
    def under_way(self) -> int:
        """Texts that no engine is done with."""
        return sum(model.admission.under_way for model in self._models)

    def close(self) -> None:
        """End every engine, each also where another cannot be; calling it twice is fine."""
        with ExitStack() as closing:
            for model in self._models:
                closing.callback(model.llm.close)


def load_served(
    target: str | None = None,
    draft: str | None = None,
    strategies: Sequence[Any] = ("async_tree",),
    *,
    served_name: str | None = None,
    max_queue: int = 256,
    progress: bool = False,
    **fields: Any,
) -> ServedModels:
    """Load target and draft once and make an engine for each strategy over them. fields: of the engines. Raises as
    `LLM` does.
    """
    base = served_name or ("bundled" if target is None else Path(target).name.removesuffix(".gguf"))
    chosen = listed(strategies)
    loaded_target: Any = str(demo.TARGET) if target is None else target
    loaded_draft: Any = str(demo.DRAFT) if target is None and draft is None else draft
    takers = [_takes_draft(*one) for one in chosen]
    made: list[Served] = []
    with ExitStack() as unfinished:
        for number, (name, (strategy, own)) in enumerate(zip(_names(base, chosen), chosen, strict=True)):
            its_draft = loaded_draft if takers[number] or not any(takers) else None  # else it would be taken for a head
            # chat=False: a completion's prompt is the text itself, and messages go through the template all the same
            llm = LLM(loaded_target, its_draft, strategy, chat=False, progress=progress, **{**fields, **own})
            unfinished.callback(llm.close)
            loaded_target = llm.target
            loaded_draft = loaded_draft if llm.draft is None else llm.draft
            names = (base, name) if number == 0 else (name,)
            made.append(Served(names, llm, Admission(llm.config.max_batch, max_queue)))
        unfinished.pop_all()
    return ServedModels(made)


def _takes_draft(strategy: Any, fields: dict[str, Any]) -> bool:
    knobs = {name: value for name, value in fields.items() if name not in EngineConfig.model_fields}
    return registry.config(strategy, knobs).uses_draft


def _names(base: str, chosen: Sequence[tuple[Any, dict[str, Any]]]) -> list[str]:
    """Of each strategy; where one is served more than once, those with fields of their own have them in their names.

    Raises ConfigError for two that are the same.
    """
    plain = [f"{base}:{getattr(strategy, 'strategy_name', strategy)}" for strategy, _ in chosen]
    names: list[str] = []
    for name, (_, own) in zip(plain, chosen, strict=True):
        fields = ",".join(f"{key}={value}" for key, value in own.items())
        names.append(f"{name}({fields})" if fields and plain.count(name) > 1 else name)
        if names.count(names[-1]) > 1:
            raise ConfigError(f"{names[-1]} is served twice: give each --strategy other fields")
    return names
