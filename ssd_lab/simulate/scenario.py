"""A run to be drawn: which strategy, how many sequences, which schedule and fallback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from ssd_lab.errors import ConfigError
from ssd_lab.learning.fallback_choice import FallbackChooser, FallbackKind, MeasuredRound

StrategyName = Literal[
    "autoregressive", "sync_chain", "sync_tree", "async_tree", "eagle3", "prompt_lookup", "cascade"
]  # fmt: skip


class Learner(Protocol):
    """A schedule of one run: `ssd_lab.learning.fan_out_learner.ScheduleLearner` is one."""

    def counts(self, hit: bool) -> tuple[int, ...]:
        """Fan-out at accepted lengths 0..k."""

    def observe(self, hit: bool, num_accepted: int, recovery_rank: int | None, k: int) -> None:
        """Tell how a round ended."""


class SupportsLearner(Protocol):
    """A schedule config: those of `ssd_lab.strategies.fanout`."""

    def learner(self, k: int) -> Learner:
        """The schedule of one run."""


class Chooser(Protocol):
    """What picks a fallback: `ssd_lab.learning.fallback_choice.FallbackChooser` is one."""

    def choose(self, batch: int, missed: int) -> FallbackKind:
        """The fallback for these missed rows."""

    def observe(self, measured: MeasuredRound) -> None:
        """Tell what a round gave and cost."""


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
    fan_out: int | Sequence[int] | SupportsLearner = 3
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

    def learner(self) -> Learner:
        """The schedule of the run."""
        if isinstance(self.fan_out, int):
            return _Fixed((self.fan_out,) * (self.k + 1))
        if isinstance(self.fan_out, Sequence):
            return _Fixed(tuple(self.fan_out))
        return self.fan_out.learner(self.k)

    def chooser(self) -> Chooser:
        """What picks the fallback."""
        return FallbackChooser() if self.fallback == "auto" else _Always(self.fallback)


@dataclass(frozen=True)
class _Fixed:
    schedule: tuple[int, ...]

    def counts(self, hit: bool) -> tuple[int, ...]:
        return self.schedule

    def observe(self, hit: bool, num_accepted: int, recovery_rank: int | None, k: int) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class _Always:
    kind: FallbackKind

    def choose(self, batch: int, missed: int) -> FallbackKind:
        return self.kind

    def observe(self, measured: MeasuredRound) -> None:
        """Nothing to learn."""
