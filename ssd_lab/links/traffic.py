"""What went over a link: how many messages, when they travelled, and by which clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Traffic:
    """Messages of a link since it was opened. asked, answered: the two of each round. posted: those without a reply,
    sent when something changed. beside: parts of answers that had no room in their place.
    """

    asked: int = 0
    answered: int = 0
    posted: int = 0
    beside: int = 0

    @property
    def all(self) -> int:
        """Messages both ways."""
        return self.asked + self.answered + self.posted + self.beside
