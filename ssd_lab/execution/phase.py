"""A phase: what a device computes in one go, as data, so that any rank can be told to do the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

RunnerType = TypeVar("RunnerType")
Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")


class Phase(ABC, Generic[RunnerType, Inputs, Outputs]):
    """A frozen dataclass of numbers and settings: hashable, picklable, and all that its work depends on besides the
    inputs and the runner.

    Inputs and outputs are tensors, None, or frozen dataclasses and tuples of them (see `structure.py`); the first
    dimension of the tensors is the batch. name: as traces and error messages call it. captured: may it become a graph?
    uses_before_capture: how often it runs as it is, in a shape, before that becomes a graph.
    """

    name: ClassVar[str]
    captured: ClassVar[bool] = True
    uses_before_capture: ClassVar[int] = 0

    @abstractmethod
    def run(self, runner: RunnerType, inputs: Inputs) -> Outputs:
        """Queue the work. It waits for nothing, and reads nothing of the host's."""

    def elsewhere(self, inputs: Inputs) -> tuple[Phase[RunnerType, Any, Any], Any]:
        """What the other ranks of a runner over several devices do meanwhile, and the inputs they need: the same, or of
        it what their shares of weights and KV cache have a part in.
        """
        return self, inputs


AnyPhase = Phase[Any, Any, Any]
