"""A run to be drawn: which strategy, how many sequences, which schedule and fallback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ssd_lab.errors import ConfigError
from ssd_lab.learning.fallback_choice import FallbackChooser, FallbackRule, FixedChoice
from ssd_lab.learning.fan_out_learner import FanOutSchedule, ScheduleLearner

Drafting = Literal["none", "lookup", "chain", "tree", "cascade", "async"]
BUILT_IN: dict[str, Drafting] = {
    "autoregressive": "none",
    "prompt_lookup": "lookup",
    "suffix_tree": "lookup",
    "sync_chain": "chain",
    "sync_tree": "tree",
    "eagle3": "tree",  # in mode sync
    "cascade": "cascade",
    "async_tree": "async",
}


@dataclass(frozen=True)
class Scenario:
    """What is drawn.

    strategy: its name; any name if `drafting` is given, and a strategy's own `scenario` gives it. k: draft tokens a
    round. fan_out: one number for each accepted length, a list of k + 1, or a schedule config. fallback: jit, fast or
    auto. batch, rounds, seed: how much. mode: of eagle3. widths: of a verified tree, the nodes at depth 1, 2, ...: each
    the next of the draft's likeliest tokens on the likeliest path (a comb); None: a chain. drafting: where a round's
    draft tokens come from: none; lookup, guessed from the text; chain or tree, by the draft before the verification;
    cascade, a lookup or else a chain; async, by the draft beside the verification (None: as the built-in strategy of
    that name). Raises ConfigError for a value outside its range.
    """

    strategy: str = "async_tree"
    k: int = 6
    fan_out: int | Sequence[int] | FanOutSchedule = 3
    fallback: Literal["jit", "fast", "auto"] = "jit"
    batch: int = 1
    rounds: int = 5000
    seed: int = 0
    mode: Literal["sync", "async"] = "async"
    widths: tuple[int, ...] | None = None
    drafting: Drafting | None = None

    def __post_init__(self) -> None:
        if self.drafting is None and self.strategy not in BUILT_IN:
            raise ConfigError(
                f"strategy is {self.strategy!r}; known here: {', '.join(BUILT_IN)}; for another one take its config's "
                "`scenario`, or give drafting="
            )
        for name, allowed in (
            ("mode", ("sync", "async")),
            ("fallback", ("jit", "fast", "auto")),
            ("drafting", (None, *get_args(Drafting))),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(map(str, allowed))}")
        for name, value, least in (("k", self.k, 1), ("batch", self.batch, 1), ("rounds", self.rounds, 1)):
            if value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")
        if self.widths is not None and (len(self.widths) != self.k or min(self.widths) < 1):
            raise ConfigError(f"widths is {self.widths}; a tree of depth k = {self.k} needs {self.k} numbers above 0")
        if isinstance(self.fan_out, Sequence) and len(self.fan_out) != self.k + 1:
            raise ConfigError(f"fan_out has {len(self.fan_out)} numbers; k = {self.k} needs {self.k + 1}")

    @property
    def drafted_by(self) -> Drafting:
        """`drafting`, or that of the built-in strategy."""
        if self.drafting is None and self.strategy == "eagle3" and self.mode == "async":
            return "async"
        return self.drafting or BUILT_IN[self.strategy]

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
