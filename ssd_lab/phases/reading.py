"""How a draft reads a round, whatever it is: what is committed, then tokens after it, one step after another.

Chains and trees are written once over it (`draft_chain.py`, `draft_tree.py`, `grow_tree.py`, `grow_dynamic_tree.py`).
A reading is data, the inputs of those phases; the runner that they are run by does the forwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ssd_lab.kernels.step_input import StepInput
from ssd_lab.rounds.rows import CausalRun, RowTensors, causal_step
from ssd_lab.rounds.runner import StepRunner

States = torch.Tensor | None
"""What tokens hand on to those after them besides K/V, `[batch, n, hidden]`; None: the draft hands on nothing."""


class Begun(NamedTuple):
    """What is committed was read: the outlook `[batch, 1, ...]` on the next token, its states, and the run of positions
    that come next.
    """

    outlook: torch.Tensor
    states: States
    run: CausalRun


class Reading(ABC):
    """The rows of a round as one kind of draft reads them. Outlooks are those of its `Runner`."""

    rows: RowTensors

    @property
    @abstractmethod
    def starts(self) -> torch.Tensor:
        """Rows `[batch]` of the draft's cache that stand for committed tokens; the next one comes after them."""

    @abstractmethod
    def reach(self, count: int) -> int:
        """How many cache positions behind the committed tokens are in use for `count` outlooks, one after another."""

    @abstractmethod
    def begin(self, runner: Any, context: int, *, following: int = 0) -> Begun:
        """Read what is committed. context: a bound on the cache positions in use; following: positions of the run."""

    @abstractmethod
    def extend(self, runner: Any, tokens: torch.Tensor, context: int) -> tuple[torch.Tensor, States]:
        """Read what is committed and `tokens` `[batch, k]` after it; the outlooks `[batch, k + 1, ...]` after each."""

    @abstractmethod
    def follow(self, runner: Any, step: StepInput, states: States) -> tuple[torch.Tensor, States]:
        """Read further tokens, given the states of those before them `[batch, n, hidden]`; the outlooks after each."""


@dataclass(frozen=True)
class ModelReading(Reading):
    """A model of its own, which reads tokens."""

    rows: RowTensors

    @property
    def starts(self) -> torch.Tensor:
        """One row for each token."""
        return self.rows.lengths

    def reach(self, count: int) -> int:
        """The first outlook is that after the last committed token."""
        return count - 1

    def begin(self, runner: StepRunner, context: int, *, following: int = 0) -> Begun:
        """Feed the last two committed tokens: of a round in which all were accepted the draft has not seen the last
        one, and feeding a token again writes the same K/V again.
        """
        rows, count = self.rows, 2 + following
        first = torch.stack([rows.previous_tokens, rows.last_tokens], 1)
        run = CausalRun.starting(
            runner.kernels, rows.lengths - 2, count, rows.tables, runner.block_size, longest=context - count
        )
        return Begun(runner.last_logits(run.step(first, 0, 2)), None, run.behind(2))

    def extend(self, runner: StepRunner, tokens: torch.Tensor, context: int) -> tuple[torch.Tensor, States]:
        """One forward over the last committed token and those after it."""
        rows, count = self.rows, 1 + tokens.shape[1]
        fed = torch.cat([rows.last_tokens[:, None], tokens], 1)
        return runner.logits(
            causal_step(runner.kernels, fed, rows.lengths - 1, rows.tables, runner.block_size, longest=context - count)
        ), None

    def follow(self, runner: StepRunner, step: StepInput, states: States) -> tuple[torch.Tensor, States]:
        """One forward."""
        return runner.logits(step), None
