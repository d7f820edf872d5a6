"""What answers each row of a round: a prepared branch, a guess, or the draft now."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.drafting.speculation_cache import Entry
from ssd_lab.learning.fallback_choice import FallbackKind


@dataclass(frozen=True)
class Paths:
    """What answers each row. origins: as in the trace. entries: the branches that are taken. missed: rows whose outcome
    was looked up and not found; kind: the fallback that answers all of these (None: not the same).
    """

    origins: list[str]
    entries: list[Entry | None]
    missed: list[int]
    kind: FallbackKind | None

    @property
    def taken(self) -> list[int]:
        """Rows that take a branch, those of the tree first."""
        rows = [(entry.kept is not None, row) for row, entry in enumerate(self.entries) if entry is not None]
        return [row for _, row in sorted(rows)]

    @property
    def are_of_the_tree(self) -> bool:
        """Does every row take a branch of the latest tree?"""
        return all(entry is not None and entry.kept is None for entry in self.entries)

    @property
    def guessed(self) -> list[int]:
        """Rows that are answered without the draft."""
        return [row for row, origin in enumerate(self.origins) if origin == "fast" and self.entries[row] is None]

    @property
    def drafted(self) -> list[int]:
        """Rows that the draft answers now."""
        return [row for row, origin in enumerate(self.origins) if origin != "fast" and self.entries[row] is None]
