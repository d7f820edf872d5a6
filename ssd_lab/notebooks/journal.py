"""What a reader said and tried, for as long as the kernel lives: predictions, answers, hints."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from ssd_lab.display.tables import Table


@dataclass
class Attempts:
    """At one exercise."""

    tries: int = 0
    hints: int = 0
    right: bool = False


class Journal:
    """Notes of one kernel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._predicted: dict[str, Any] = {}
        self._attempts: dict[str, Attempts] = {}

    def predicted(self, name: str, guess: Any) -> None:
        """Keep the latest."""
        with self._lock:
            self._predicted[name] = guess

    def prediction(self, name: str) -> Any:
        """What was said, `...` where nothing was."""
        return self._predicted.get(name, ...)

    def tried(self, exercise: str, *, right: bool) -> None:
        """An answer was checked."""
        with self._lock:
            attempts = self._attempts.setdefault(exercise, Attempts())
            attempts.tries += not attempts.right
            attempts.right |= right

    def hinted(self, exercise: str, most: int) -> int:
        """Another hint is asked for; its number from 1, the last one again and again."""
        with self._lock:
            attempts = self._attempts.setdefault(exercise, Attempts())
            attempts.hints = min(most, attempts.hints + 1)
            return attempts.hints

    def tally(self) -> Table:
        """Every exercise that was tried, and how many things were foretold."""
        with self._lock:
            tried = sorted(self._attempts.items())
            foretold = len(self._predicted)
        rows = [[name, "✓" if one.right else "not yet", str(one.tries), str(one.hints)] for name, one in tried]
        done = sum(one.right for _, one in tried)
        lead = f"{done} of {len(tried)} exercises that you tried are right" if tried else "no exercise was tried yet"
        predictions = f"{foretold} prediction{'' if foretold == 1 else 's'}"
        return Table(("exercise", "right", "tries", "hints"), rows, f"{lead}; you made {predictions}")


JOURNAL = Journal()  # one for the process, as its reader is
