"""Executes the phases of a target that several ranks share."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ssd_lab.execution.executor import Executor
from ssd_lab.execution.phase import Inputs, Outputs, Phase, RunnerType
from ssd_lab.ranks.team import RankTeam


class RanksExecutor(Executor):
    """The first rank's: every phase is told to the others before it runs here. own: what executes it here, as one like
    it does there, in the same order, so that each rank captures the same graphs.
    """

    def __init__(self, own: Executor, team: RankTeam) -> None:
        self._own, self._team = own, team

    def call(self, phase: Phase[RunnerType, Inputs, Outputs], runner: RunnerType, inputs: Inputs) -> Outputs:
        """The phase's outputs on this rank."""
        with self._team.running(phase, inputs):
            return self._own.call(phase, runner, inputs)

    @property
    def runs_behind(self) -> bool:
        """As the own one's does."""
        return self._own.runs_behind

    @property
    def prepares(self) -> bool:
        """As the own one does."""
        return self._own.prepares

    @property
    def captures(self) -> bool:
        """As the own one does."""
        return self._own.captures

    def confirm(self) -> None:
        """Were all ranks there?"""
        self._team.confirm()

    def keep_in_place(self, tensors: Iterable[torch.Tensor]) -> None:
        """Of this rank."""
        self._own.keep_in_place(tensors)

    def release(self) -> None:
        """Of this rank; each of the others does so when it ends."""
        self._own.release()

    def bucket(self, rows: int) -> int:
        """As the own one's."""
        return self._own.bucket(rows)

    def context_bound(self, context_length: int) -> int:
        """As the own one's."""
        return self._own.context_bound(context_length)
