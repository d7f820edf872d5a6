"""A run to be drawn: which strategy, how many sequences, which schedule and fallback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ssd_lab.errors import ConfigError
from ssd_lab.learning.fallback_choice import FallbackChooser, FallbackRule, FixedChoice
from ssd_lab.learning.fan_out_learner import FanOutSchedule, ScheduleLearner

StrategyName = Literal[
    "autoregressive", "sync_chain", "sync_tree", "async_tree", "eagle3", "prompt_lookup", "cascade"
]  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """What is drawn.

    k: draft tokens a round. fan_out: one number for each accepted length, a list of k + 1, or a schedule config.
    fallback: jit, fast or auto. batch, rounds, seed: how much. mode: of eagle3. widths: of a verified tree, the nodes
    at depth 1, 2, ...: each the next of the draft's likeliest tokens on the likeliest path (a comb); None: a chain.
    Raises ConfigError for a value outside its range.
    """

    strategy: StrategyName = "async_tree"
    k: int = 6
    fan_out: int | Sequence[int] | FanOutSchedule = 3
    fallback: Literal["jit", "fast", "auto"] = "jit"
    batch: int = 1
    rounds: int = 5000
    seed: int = 0
    mode: Literal["sync", "async"] = "async"
    widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("strategy", StrategyName), ("mode", Literal["sync", "async"])):
            if getattr(self, name) not in get_args(allowed):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(get_args(allowed))}")
        if self.fallback not in ("jit", "fast", "auto"):
            raise ConfigError(f"fallback is {self.fallback!r}; allowed: jit, fast, auto")
        for name, value, least in (("k", self.k, 1), ("batch", self.batch, 1), ("rounds", self.rounds, 1)):
            if value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")
        if self.widths is not None and (len(self.widths) != self.k or min(self.widths) < 1):
            raise ConfigError(f"widths is {self.widths}; a tree of depth k = {self.k} needs {self.k} numbers above 0")
        if isinstance(self.fan_out, Sequence) and len(self.fan_out) != self.k + 1:
            raise ConfigError(f"fan_out has {len(self.fan_out)} numbers; k = {self.k} needs {self.k + 1}")

    @property
    def asynchronous(self) -> bool:
        """Does the draft work while the target verifies?"""
        return self.strategy == "async_tree" or (self.strategy == "eagle3" and self.mode == "async")

    def learner(self) -> ScheduleLearner:
        """The schedule of the run."""
        if isinstance(self.fan_out, int):
            counts: Sequence[int] = (self.fan_out,) * (self.k + 1)
            return ScheduleLearner(counts, counts)
        if isinstance(self.fan_out, Sequence):
            return ScheduleLearner(self.fan_out, self.fan_out)
        return self.fan_out.learner(self.k)

    def chooser(self) -> FallbackRule:
        """What picks the fallback."""
        return FallbackChooser() if self.fallback == "auto" else FixedChoice(self.fallback)
