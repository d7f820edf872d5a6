"""What rows and notes read of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ssd_lab.trace import Metrics


class Measured(Protocol):
    """A `RunResult`, as far as its numbers go."""

    @property
    def strategy_name(self) -> str:
        """The strategy's registered name."""
        ...

    @property
    def metrics(self) -> Metrics:
        """Its numbers."""
        ...

    @property
    def turns(self) -> tuple[float, ...]:
        """Tokens per second of each turn, if there were several."""
        ...

    @property
    def outputs(self) -> Sequence[Any]:
        """One a prompt."""
        ...

    @property
    def interrupted(self) -> bool:
        """Was it cut?"""
        ...

    def simulated(self) -> Any:
        """Its rounds on another machine's clock."""
        ...
