"""The private folder in which the ranks of one model find each other: no ports and no names that another run has."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

MEMORY = Path("/dev/shm")  # files that are memory, where the system has them


@dataclass(frozen=True)
class Meeting:
    """folder: of this meeting alone. size: how many ranks come. limit_s: for them to come, and later for each of their
    meetings in a step.
    """

    folder: str
    size: int
    limit_s: float

    @classmethod
    def called(cls, size: int, limit_s: float) -> Meeting:
        """A new one, in memory if possible."""
        place = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
        return cls(tempfile.mkdtemp(prefix=f"ssd_lab-ranks-{os.getpid()}-", dir=place), size, limit_s)

    def file(self, name: str) -> Path:
        """Of that name, in the folder."""
        return Path(self.folder) / name

    def is_over(self) -> None:
        """Whoever came has opened all; nobody else may come. Whoever notices that it failed may say so, too."""
        shutil.rmtree(self.folder, ignore_errors=True)
