"""A draft as a token tree is grown with it: it reads the committed tokens, then one level of nodes after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch

from ssd_lab.execution.executor import Executor, Tensors
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.phases.head_runner import HeadRunner
from ssd_lab.rounds.rows import RowTensors, causal_step
from ssd_lab.rounds.runner import StepRunner

States = torch.Tensor | None
"""What nodes hand on to their children besides K/V, `[batch, nodes, hidden]`; None: the draft hands on nothing."""


class Reading(ABC):
    """The rows of a round as one kind of draft reads them."""

    runner: StepRunner | HeadRunner
    rows: RowTensors

    @property
    def executor(self) -> Executor:
        """What runs its phases."""
        return self.runner.executor

    @property
    def block_size(self) -> int:
        """Tokens in one block of its KV cache."""
        return self.runner.block_size

    @property
    @abstractmethod
    def starts(self) -> torch.Tensor:
        """Rows `[batch]` of its cache that stand for committed tokens; a child of the last of them comes next."""

    @abstractmethod
    def tensors(self) -> Tensors:
        """All that it is made of, as inputs of a phase."""

    @abstractmethod
    def with_tensors(self, tensors: Tensors) -> Self:
        """The same held in other tensors."""

    @abstractmethod
    def begin(self, farthest: int) -> tuple[torch.Tensor, States]:
        """Read what is committed; logits `[batch, 1, vocab]` of what comes next. farthest: a bound on the cache
        positions in use.
        """

    @abstractmethod
    def follow(self, step: StepInput, states: States) -> tuple[torch.Tensor, States]:
        """Read some nodes, given the states of their parents `[batch, nodes, hidden]`; logits `[batch, nodes, vocab]`
        after each, and its states.
        """


@dataclass(frozen=True)
class ModelReading(Reading):
    """A model of its own, which reads tokens."""

    runner: StepRunner
    rows: RowTensors

    @property
    def starts(self) -> torch.Tensor:
        """One row for each token."""
        return self.rows.lengths

    def tensors(self) -> Tensors:
        """The rows'."""
        return self.rows.tensors()

    def with_tensors(self, tensors: Tensors) -> ModelReading:
        """The same held in other tensors."""
        return ModelReading(self.runner, self.rows.with_tensors(tensors))

    def begin(self, farthest: int) -> tuple[torch.Tensor, States]:
        """Feed the last two committed tokens, as for a chain: of an accepted path the last node was never fed."""
        rows = self.rows
        first = torch.stack([rows.previous_tokens, rows.last_tokens], 1)
        step = causal_step(first, rows.lengths - 2, rows.tables, self.block_size, longest=farthest - 2)
        return self.runner.last_logits(step), None

    def follow(self, step: StepInput, states: States) -> tuple[torch.Tensor, States]:
        """One forward."""
        return self.runner.logits(step), None
