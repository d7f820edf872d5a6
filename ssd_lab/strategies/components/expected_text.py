"""A text that the caller expects: where in it the output is, and what would come next.

For answers that are mostly known before, such as a file with an edit. The output is followed token by token; where it
leaves the expected text it is found again by its last tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 2  # tokens that must agree to find the place again; a wrong place costs a refused draft, no wrong text


class ExpectedText:
    """Follows one output through the text that was expected of it."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._ids = tuple(token_ids)
        self._place: int | None = 0  # of the token that would come next; None while the output is elsewhere
        self._last = 0  # where it was when it was last known
        self._seen = 0
        self._ends: dict[tuple[int, ...], list[int]] = {}  # where each short run of tokens ends
        for end in range(LEAST, len(self._ids) + 1):
            self._ends.setdefault(self._ids[end - LEAST : end], []).append(end)

    def next(self, output: Sequence[int], count: int) -> tuple[int, ...]:
        """Up to `count` tokens that would follow the output, which has only grown since the last call; none if its end
        is nowhere in the expected text.
        """
        new = tuple(output[self._seen :])
        self._seen = len(output)
        if self._place is not None and self._ids[self._place : self._place + len(new)] == new:
            self._place += len(new)
        else:
            self._place = self._found(tuple(output[-LEAST:]))
        if self._place is None:
            return ()
        self._last = self._place
        return self._ids[self._place : self._place + count]

    def _found(self, ending: tuple[int, ...]) -> int | None:
        """The nearest place behind the last one where the text reads so, else the last one before it."""
        ends = self._ends.get(ending, ())
        return next((end for end in ends if end >= self._last), ends[-1] if ends else None)
