"""What the tests of one kind of decision on one path came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from ssd_lab.check.statistics import found_share, found_shift

MIN_DRAWS = 100  # of a decision; fewer are tested with those of other cells


@dataclass(frozen=True)
class PathTests:
    """One kind of decision on one path. filtered: of requests with top-k, top-p or min-p, if these are tested apart.

    deviation: share of draws in the wrong bin. choices: draws whose law left a choice. spread: of tosses, what chance
    alone makes of the share that came up (its standard deviation), None for draws. summary: what can be added up over
    cells: of each uniform number how many fell into each of equal bins; of tosses, in bins by probability, their
    numbers, then the sums of their probabilities, and at last how many came up.
    """

    path: str
    event: str
    filtered: bool
    draws: int
    impossible: int
    p_values: dict[str, float] = field(default_factory=dict)
    deviation: float | None = None
    choices: int = 0
    spread: float | None = None
    summary: dict[str, list[float]] = field(default_factory=dict)

    def finds_from(self, alpha: float) -> float | None:
        """The smallest bias that would be found with a chance of `SURELY` at this level: the share of draws that go to
        likelier tokens than their laws say, or to rarer ones; of tosses, the share that come up too often. None if
        nothing was tested.
        """
        if not self.p_values or self.choices < MIN_DRAWS:
            return None
        return found_shift(self.choices, alpha) if self.spread is None else found_share(self.spread, alpha)
