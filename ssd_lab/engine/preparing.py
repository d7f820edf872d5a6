"""Whether it pays to prepare the next round for hits. That changes no text and no record, only times."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

WORTH = 0.35  # share of rounds: on an H200 one won 0.6 to 1 ms where it was started, and lost 0.3 to 0.5 where not
WEIGHT = 0.1  # of the latest round: about the last ten count
REMEMBERED = 8
READING_S = 1e-4  # takes an outcome that is there already: the device was done before
FIRST = 4  # rounds, before what preparing takes is known: the very first took 4 to 6 ms, and the fourth 1
AGAIN = 64  # rounds, after which it is tried once whatever was seen


class Preparing:
    """Only a round whose outcomes were all prepared for is started so; and the device must work for so long that the
    host has nothing better to do: small models on a GPU wait for the host, which then had better do nothing in vain.
    """

    def __init__(self) -> None:
        self._always = False
        self._share = 0.5  # of rounds that were prepared for; nothing is known
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)  # of preparing a round
        self._spare_s: deque[float] = deque(maxlen=REMEMBERED)  # of the host, while a round runs
        self._since = 0  # rounds since one was prepared

    @contextmanager
    def always(self) -> Iterator[None]:
        """Prepare every round, so that whatever it needs is there later."""
        self._always = True
        try:
            yield
        finally:
            self._always = False

    @property
    def pays(self) -> bool:
        """May the round under way be followed by one that is prepared?"""
        if self._always or self._since >= AGAIN:
            return True
        is_known = len(self._took_s) >= FIRST and len(self._spare_s) > 0
        has_time = not is_known or statistics.median(self._spare_s) >= min(self._took_s)
        return has_time and self._share >= WORTH

    def saw(self, was_prepared: bool | None) -> None:
        """See `Proposal`; None says nothing."""
        if was_prepared is not None:
            self._share += WEIGHT * (was_prepared - self._share)

    def took(self, seconds: float) -> None:
        """To prepare a round. The shortest of late counts: the first ones capture graphs."""
        self._took_s.append(seconds)
        self._since = 0

    def waited(self, seconds: float) -> None:
        """The host, for a round's outcome, after preparing the next one or not."""
        prepared_s = self._took_s[-1] if self._took_s and self._since == 0 else 0.0
        self._spare_s.append(seconds + prepared_s if seconds > READING_S else 0.0)
        self._since += 1
