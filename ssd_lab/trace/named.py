"""Traces by name, from whatever holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.trace.trace import Trace


def strategy_name(trace: Trace, otherwise: str = "run") -> str:
    """The name of the strategy that was recorded; `otherwise` if the trace does not tell."""
    strategy = trace.meta.get("strategy")
    return str(strategy.get("name", otherwise)) if isinstance(strategy, dict) else otherwise


def named_traces(source: Any) -> dict[str, Trace]:
    """Of a Trace, anything with a `trace` (a RunResult) or `runs` (a Comparison), a sequence of traces, or a dictionary
    of any of these. Raises ConfigError for anything else.
    """
    if isinstance(source, Trace):
        return {strategy_name(source): source}
    if isinstance(source, Mapping):
        return {str(name): trace for name, held in source.items() for trace in named_traces(held).values()}
    if isinstance(getattr(source, "trace", None), Trace):
        return named_traces(source.trace)
    if isinstance(getattr(source, "runs", None), Mapping):
        return named_traces(source.runs)
    if isinstance(source, Sequence) and all(isinstance(one, Trace) for one in source):
        named: dict[str, Trace] = {}
        for number, one in enumerate(source, 1):
            name = strategy_name(one, f"run {number}")
            named[name if name not in named else f"{name} #{number}"] = one
        return named
    raise ConfigError(
        f"no traces in {type(source).__name__} {repr(source)[:60]}: give a Trace, a RunResult, a Comparison, several "
        "traces, or a dictionary of them by name"
    )
