"""What is tried: a strategy with its fields, and the grid of them."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.simulate import Scenario
from ssd_lab.strategies import SequenceStrategy, registry
from ssd_lab.strategies.fanout import Adaptive, Geometric
from ssd_lab.trace import Trace

LOOKAHEADS = (1, 2, 3, 4, 6, 8)
FAN_OUTS = (1, 2, 3, 5)  # branches at each accepted length; a budget is k + 1 times as much
COEFFICIENTS = (0.75, 0.5, 0.25)  # of Saguaro sampling, at temperatures above 0
FALLBACKS = ("jit", "fast", "auto")
BUNDLED_HEAD = "bundled"  # the EAGLE3 head of the bundled target
COMBS = ((2, 2, 1), (3, 2, 1, 1), (2, 2, 2, 1, 1))  # nodes at each depth, all but the first of them leaves


@dataclass(frozen=True)
class Candidate:
    """A strategy's name and fields, as `ssd_lab.run(strategy=name, **fields)` takes them."""

    strategy: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How it is shown."""
        return " ".join([self.strategy, *(_shown(name, value) for name, value in self.fields.items())])

    @property
    def options(self) -> list[str]:
        """The same as options of the command line."""
        words = ["-s", self.strategy]
        for name, value in self.fields.items():
            if isinstance(value, dict):
                words += [word for line in _flat(name, value) for word in ("--set", line)]
            elif name in ("k", "f", "fallback"):
                words += [f"--{name}", str(value)]
            else:
                words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        return words

    def command(self, prompts: str, further: Sequence[str] = ()) -> str:
        """A command line that runs it."""
        return " ".join(["ssd-lab run", prompts, shlex.join([*self.options, *further])])

    def call(self, further: dict[str, Any]) -> str:
        """A Python call that runs it."""
        given = {"strategy": self.strategy, **self.fields, **further}
        return f"ssd_lab.run(prompts, {', '.join(f'{name}={value!r}' for name, value in given.items())})"

    @property
    def allowed(self) -> bool:
        """Does this version have the strategy, with these fields and values?"""
        try:
            registry.config(self.strategy, self.fields)
        except ConfigError:
            return False
        return True

    @property
    def overlaps(self) -> bool:
        """Does its draft work while the target does?"""
        return registry.config(self.strategy, self.fields).overlaps

    @property
    def is_lookup(self) -> bool:
        """Does it draft from the text alone, in plain Python?"""
        config = registry.config(self.strategy, self.fields)
        return isinstance(config, SequenceStrategy) and not config.needs_draft

    @property
    def by_confidence(self) -> bool:
        """Does it spend its branches by the draft's probabilities?"""
        schedule = self.fields.get("fan_out", {})
        return schedule.get("kind") == "adaptive" and schedule.get("by_confidence", True)

    @property
    def mean_fan_out(self) -> int:
        """Branches at the mean accepted length of an `async_tree`."""
        config: Any = registry.config(self.strategy, self.fields)
        return max(1, round(sum(config.schedule.after_hit(config.k)) / (config.k + 1)))

    def scenario(self, batch: int, rounds: int) -> Scenario:
        """What the virtual clock draws for it. Raises ConfigError for a strategy that it cannot draw."""
        config = registry.config(self.strategy, self.fields)
        return dataclasses.replace(config.scenario, batch=batch, rounds=rounds)


def grid(trace: Trace, *, head: str | None = None) -> list[Candidate]:
    """Everything that is scored, as far as this version has it, registered strategies of users with their default
    fields among them; geometric schedules are solved for the trace's laws.
    Trees here have the first fallback and no schedule that learns, chains a fixed k and no cascade: `variants` has the
    others. head: of EAGLE3 (None: none is tried).
    """
    found = [Candidate("autoregressive"), *_chains(), *_trees(trace), *_combs(), *_lookups(), *heads(head)]
    tried = {"cascade", "eagle3", *(candidate.strategy for candidate in found)}
    found += [Candidate(name) for name in registry.all() if name not in tried]
    return [candidate for candidate in found if candidate.allowed]


def heads(head: str | None, lookaheads: Sequence[int] = LOOKAHEADS) -> list[Candidate]:
    """Synchronous chains of an EAGLE3 head; `BUNDLED_HEAD` needs no name."""
    named = {} if head in (None, BUNDLED_HEAD) else {"head": head}
    return [] if head is None else [Candidate("eagle3", {"k": k, **named}) for k in lookaheads]


def variants(candidate: Candidate) -> list[Candidate]:
    """The same tree with the other fallbacks, and with schedules that learn in place of the geometric one; the same
    chain as the second part of cascades; a chain of the longest lookahead with k chosen while running.
    """
    if candidate.strategy == "sync_chain" and "dynamic_lookahead" not in candidate.fields:
        second = {"strategy": "sync_chain", **candidate.fields}
        found = [Candidate("cascade", {"first": one.strategy, "second": second}) for one in _lookups()]
        if candidate.fields["k"] == max(LOOKAHEADS):
            found.append(Candidate("sync_chain", {**candidate.fields, "dynamic_lookahead": True}))
        return [one for one in found if one.allowed]
    if candidate.strategy != "async_tree":
        return []
    schedule = candidate.fields.get("fan_out", {})
    changes: list[dict[str, Any]] = [{"fallback": fallback} for fallback in FALLBACKS[1:]]
    if schedule.get("kind") == "geometric":
        adaptive = Adaptive(budget=schedule["budget"], prior=schedule.get("hit"), by_confidence=False)
        confident = Adaptive(budget=schedule["budget"])
        changes += [
            {"fan_out": _as_fields(learning), "fallback": fallback}
            for learning in (adaptive, confident)
            for fallback in FALLBACKS
        ]
    found = [Candidate("async_tree", {**candidate.fields, **change}) for change in changes]
    return [one for one in found if one.allowed]


def with_coefficients(candidate: Candidate) -> list[Candidate]:
    """The same tree with Saguaro sampling."""
    if candidate.strategy != "async_tree":
        return []
    found = [Candidate("async_tree", {**candidate.fields, "saguaro_c": c}) for c in COEFFICIENTS]
    return [one for one in found if one.allowed]


def coarse_grid(head: str | None = None) -> list[Candidate]:
    """The candidates that can be measured one by one in minutes: no schedule that depends on a trace."""
    trees = [
        Candidate("async_tree", {"k": k, "f": f, "fallback": fallback})
        for k in LOOKAHEADS
        for f in (1, 3)
        for fallback in ("jit", "fast")
    ]
    adaptive = [
        Candidate("async_tree", {"k": k, "fan_out": _as_fields(Adaptive(budget=3 * (k + 1)))}) for k in LOOKAHEADS[1:]
    ]
    chains = list(_chains())
    others = [other for one in chains if one.fields["k"] in (4, 8) for other in variants(one)]
    found = [Candidate("autoregressive"), *chains, *others, *trees, *adaptive, *_lookups(), *heads(head)]
    return [candidate for candidate in found if candidate.allowed]


def _chains() -> Iterator[Candidate]:
    return (Candidate("sync_chain", {"k": k}) for k in LOOKAHEADS)


def _trees(trace: Trace) -> Iterator[Candidate]:
    for k in LOOKAHEADS:
        for f in FAN_OUTS:
            schedules: list[dict[str, Any]] = [{"f": f}]
            geometric = _geometric(trace, f * (k + 1))
            if geometric is not None:
                schedules.append({"fan_out": _as_fields(geometric)})
            for schedule in schedules:
                yield Candidate("async_tree", {"k": k, **schedule, "fallback": FALLBACKS[0]})


def _geometric(trace: Trace, budget: int) -> Geometric | None:
    try:
        return Geometric.from_trace(trace, budget)
    except ConfigError:  # too few misses to fit a law: any schedule hits
        return None


def _as_fields(schedule: Geometric | Adaptive) -> dict[str, Any]:
    """What must be written to get this schedule."""
    return {"kind": schedule.kind, **schedule.model_dump(exclude_defaults=True, exclude={"kind"})}


def _combs() -> Iterator[Candidate]:
    for widths in COMBS:
        paths = [[0] * depth + [rank] for depth, width in enumerate(widths) for rank in range(width)]
        yield Candidate("sync_tree", {"tree": {"kind": "fixed", "paths": paths}})


def _lookups() -> Iterator[Candidate]:
    for name, strategy in registry.all().items():
        if issubclass(strategy, SequenceStrategy) and not strategy.needs_draft:
            yield Candidate(name)


def _widths(paths: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(len(path) == depth for path in paths) for depth in range(1, max(map(len, paths)) + 1))


def _shown(name: str, value: Any) -> str:
    """A field in a few characters: of nested settings the kind and the size."""
    if name == "fallback":
        return str(value)
    if not isinstance(value, dict):
        return f"{name}={value}"
    if "strategy" in value:
        return f"{name}={value['strategy']}:{value.get('k', '')}"
    shown = [str(value.get("kind", "")), *(str(value[key]) for key in ("budget", "f") if key in value)]
    if value.get("kind") == "adaptive" and value.get("by_confidence", True):
        shown.append("confidence")
    if "paths" in value:
        shown.append("x".join(map(str, _widths(value["paths"]))))
    return ":".join(shown)


def _flat(name: str, value: dict[str, Any]) -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(f"{name}.{key}", inner)
        else:
            yield f"{name}.{key}={inner if isinstance(inner, str) else json.dumps(inner)}"
