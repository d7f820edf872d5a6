"""Where a request goes: to a replica that was sent how its prompt begins, unless its queue is too long; else to the
shortest queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

from ssd_lab.serve.replicas.prefixes import PrefixTable

SLACK = 4  # requests by which the queue of a replica that knows the prompt may be longer than the shortest


class Routing:
    """Decides when a request is routed, from what was routed before: no replica is asked. under_way: by replica."""

    def __init__(self) -> None:
        self.under_way: Counter[Any] = Counter()
        self._prefixes, self._turn = PrefixTable(), count()

    def order(self, marks: Sequence[int], replicas: Sequence[Any]) -> list[Any]:
        """Whom to ask, the first one first; it is then known to have the prompt. Those that know its beginning come
        before all others, either from the shortest queue on; of equal ones another comes first each time.
        """
        turn = next(self._turn) % len(replicas)
        everybody = sorted([*replicas[turn:], *replicas[:turn]], key=lambda each: self.under_way[each])
        longest = self.under_way[everybody[0]] + SLACK
        holders = self._prefixes.holders(marks)
        knowing = [each for each in everybody if each in holders and self.under_way[each] <= longest]
        chosen = [*knowing, *(each for each in everybody if each not in knowing)]
        self._prefixes.note(marks, chosen[0])
        return chosen

    def sent(self, replica: Any) -> None:
        """Something was sent to it."""
        self.under_way[replica] += 1

    def ended(self, replica: Any) -> None:
        """That has ended."""
        self.under_way[replica] = max(0, self.under_way[replica] - 1)
