"""How a phase is executed: as it is, or as a captured graph. The phases in `phases/` do not know which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial

import torch

from ssd_lab.execution.phase import Inputs, Outputs, Phase, RunnerType


class Executor(ABC):
    """Runs phases, for one runner."""

    @abstractmethod
    def call(self, phase: Phase[RunnerType, Inputs, Outputs], runner: RunnerType, inputs: Inputs) -> Outputs:
        """The phase's outputs for these inputs.

        The outputs are the caller's to read until this executor's next call of a phase of that name, whatever its
        shapes and settings; no other phase's work writes to them, and nobody may. They are filled by work queued on the
        current stream: whoever reads them on another stream lets it wait for an event recorded after the call, and sees
        to it that the next call of that name is queued behind the reading. Whoever needs them for longer keeps a copy.
        """

    def ready(
        self, phase: Phase[RunnerType, Inputs, Outputs], runner: RunnerType, inputs: Inputs
    ) -> Callable[[], Outputs]:
        """`call` in two steps: what is returned starts the work, with as little left to do as can be. It is to be
        called before the next call of a phase of that name, or never.
        """
        return partial(self.call, phase, runner, inputs)

    @property
    @abstractmethod
    def runs_behind(self) -> bool:
        """Does work go on after `call` has returned, so that the host may do something else meanwhile?"""

    @property
    def prepares(self) -> bool:
        """Does the first call of a shape take longer than those after it?"""
        return self.runs_behind

    @property
    def captures(self) -> bool:
        """Is it good to call a phase in few different shapes?"""
        return False

    def confirm(self) -> None:  # noqa: B027 - only where other processes take part
        """Raise if results that are on the host now are nonsense, because somebody who takes part was lost."""

    def keep_in_place(self, tensors: Iterable[torch.Tensor]) -> None:  # noqa: B027 - only captured work must know
        """These tensors stay where they are for as long as this executor lives."""

    def release(self) -> None:  # noqa: B027 - only what was captured is held
        """Nothing is called any more: let go of what was captured. Connections that it uses cannot be closed before."""

    def bucket(self, rows: int) -> int:
        """How many rows to compute for a batch of `rows`, padding included."""
        return rows

    def context_bound(self, context_length: int) -> int:
        """The context length to plan for, at least `context_length`."""
        return context_length


class EagerExecutor(Executor):
    """Runs the phase."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @property
    def runs_behind(self) -> bool:
        """On a GPU kernels are queued; on a CPU the work is done when `call` returns."""
        return self._device.type == "cuda"

    def call(self, phase: Phase[RunnerType, Inputs, Outputs], runner: RunnerType, inputs: Inputs) -> Outputs:
        """The phase's outputs."""
        return phase.run(runner, inputs)
