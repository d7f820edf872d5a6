"""A step without work, as every process finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ssd_lab.execution.phase import Phase


@dataclass(frozen=True)
class Nothing(Phase[Any, torch.Tensor, None]):
    """What is left of such a step is telling the ranks of it. number: makes it another one."""

    name: ClassVar[str] = "nothing"

    number: int = 0

    def run(self, runner: Any, inputs: torch.Tensor) -> None:
        """Nothing."""
