"""Whether it pays to prepare the next round for hits. That changes no text and no record, only times."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

WORTH = 0.35  # share of rounds: on an H200 one won 0.6 to 1 ms where it was started, and lost 0.3 to 0.5 where not
WEIGHT = 0.1  # of the latest round: about the last ten count
REMEMBERED = 8  # rounds of a kind
FIRST = 4  # rounds of a kind, before it is known: the very first took 4 to 6 ms, and the fourth 1
AGAIN = 256  # rounds, after which it is tried anew whatever was seen
ORDINARY_AGAIN = 512  # prepared rounds, after which the ordinary way is tried once


class Preparing:
    """Only a round whose outcomes were all prepared for is started so. Both ways are timed, from outcome to outcome of
    rounds that hit, and the shorter one is taken: the host needs longer for a prepared round, most of it while the
    device works. Small models on a GPU wait for the host, which then had better do less.
    """

    def __init__(self) -> None:
        self._always = False
        self._share = 0.5  # of rounds that were prepared for; nothing is known
        self._since = 0  # rounds since one was prepared
        self._since_ordinary = 0  # prepared rounds since one that was not
        self._took_s: dict[tuple[int, bool], deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    @contextmanager
    def always(self) -> Iterator[None]:
        """Prepare every round, so that whatever it needs is there later."""
        self._always = True
        try:
            yield
        finally:
            self._always = False

    def pays(self, rows: int) -> bool:
        """May the round of so many sequences that is under way be followed by one that is prepared?"""
        if self._always:
            return True
        if self._since >= AGAIN:
            self._took_s.pop((rows, True), None)  # something has changed, perhaps
            return True
        if self._share < WORTH or self._since_ordinary >= ORDINARY_AGAIN:
            return False
        prepared, ordinary = self._took_s[rows, True], self._took_s[rows, False]
        if len(prepared) < FIRST or len(ordinary) < FIRST:
            return len(prepared) < FIRST
        return min(prepared) <= min(ordinary)  # without what captures and other work of the machine took

    def saw(self, was_prepared: bool | None) -> None:
        """See `Proposal`; None says nothing."""
        if was_prepared is not None:
            self._share += WEIGHT * (was_prepared - self._share)

    def prepared(self) -> None:
        """A round was, and may be started."""
        self._since = 0

    def ended(self, rows: int, seconds: float | None, *, was_prepared: bool, has_hit: bool) -> None:
        """A round of so many sequences, so long after the outcome of the one before it (None: there was none)."""
        self._since += 1
        if was_prepared:
            self._since_ordinary += 1
        elif has_hit:
            self._since_ordinary = 0
        if seconds is not None and has_hit:
            self._took_s[rows, was_prepared].append(seconds)
