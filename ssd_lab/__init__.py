"""ssd_lab: understand, change and measure speculative decoding of language models."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "run": "api", "compare": "api", "LLM": "llm",
    "SamplingParams": "config", "EngineConfig": "config",
    "Output": "results", "RunResult": "results", "Comparison": "results",
    "Trace": "trace", "load_trace": "trace",
    "register_strategy": "strategies", "StrategyConfig": "strategies",
    "Proposer": "strategies", "Draft": "strategies", "Context": "strategies", "SequenceStrategy": "strategies",
    "Proposal": "strategies", "propose_some": "strategies", "replace_rows": "strategies",
    "WrapperStrategy": "strategies", "NestedStrategy": "strategies",
    "register_schedule": "strategies", "register_fallback": "strategies", "register_tree": "strategies",
    "register_view": "widgets",
    "Schedule": "strategies", "FallbackConfig": "strategies", "TreeShape": "strategies",
}  # fmt: skip
_CALLABLE_PACKAGES = (
    "strategies",
    "simulate",
    "explain",
    "tune",
)  # `ssd_lab.strategies()` lists them, `ssd_lab.strategies.fanout` is a module

__all__ = ["__version__", *sorted(_HOMES), *_CALLABLE_PACKAGES]


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that `import ssd_lab` imports nothing heavy."""
    if name in _CALLABLE_PACKAGES:
        return importlib.import_module(f"ssd_lab.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'ssd_lab' has no attribute {name!r}; public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"ssd_lab.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
