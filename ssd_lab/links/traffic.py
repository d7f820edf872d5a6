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


def clock_offset_s(asked_s: float, told_s: float, received_s: float) -> float:
    """What must be added to another side's clock, which said `told_s` when it sent its answer, to have this side's.

    0 where its time lies between asking and receiving: processes of one host read the same clock. Elsewhere the answer
    is taken to have travelled in no time.
    """
    return 0.0 if asked_s <= told_s <= received_s else received_s - told_s
