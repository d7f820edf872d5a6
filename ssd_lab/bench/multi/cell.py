"""A cell of the plan: the smallest thing that is measured, kept and never measured again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

PIECES = {
    "correct": "Is the text that of autoregressive decoding of the same placement?",
    "links": "Links, sums over ranks, and bandwidth",
    "profile": "Phases alone, on one device",
    "rounds": "Rounds of whole runs",
}  # in the order in which they run


@dataclass
class Kept:
    """What cells of one group leave to the next, in their process. folder: of the report, for files beside results."""

    folder: Path
    things: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell(ABC):
    """Data that travels to the process that runs it. estimate_s: seconds that it is thought to take, its process's
    start included.
    """

    piece: ClassVar[str]

    @property
    @abstractmethod
    def key(self) -> str:
        """Tells it from all others of the plan; begins with its piece."""

    @property
    @abstractmethod
    def group(self) -> str:
        """Cells of one group may share a process, and what they have loaded."""

    @property
    @abstractmethod
    def estimate_s(self) -> float:
        """Before anything was measured."""

    @abstractmethod
    def run(self, kept: Kept) -> dict[str, Any]:
        """Measure; plain data, ready for JSON. Raises whatever went wrong: ConfigError where it is refused."""
