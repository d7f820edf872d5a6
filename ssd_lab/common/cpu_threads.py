"""How many CPU threads torch computes with: one number for the process, and a wish of each open engine."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch


class ThreadClaims:
    """Whoever came last among those who are still here decides; when all are gone, the number is what it was before.

    So it does not matter in which order engines are closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[object, int] = {}  # in the order in which they came
        self._before = 0

    def claim(self, count: int) -> Callable[[], None]:
        """Compute with so many threads; returns what gives the claim up, and may be called twice."""
        mine = object()
        with self._lock:
            if not self._claims:
                self._before = torch.get_num_threads()
            self._claims[mine] = count
            torch.set_num_threads(count)

        def give_up() -> None:
            with self._lock:
                if self._claims.pop(mine, None) is not None:
                    torch.set_num_threads(next(reversed(self._claims.values()), self._before))

        return give_up

    def follow(self) -> None:
        """Let this thread, too, compute with the number that holds now: OpenMP keeps one for each thread apart."""
        with self._lock:
            if self._before:
                torch.set_num_threads(next(reversed(self._claims.values()), self._before))


CLAIMS = ThreadClaims()  # one for the process, as the number itself is
