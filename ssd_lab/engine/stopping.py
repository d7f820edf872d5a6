"""Where a request's text ends: token by token, so that a stop inside an accepted block ends exactly there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled", "error"]


class TextDecoder(Protocol):
    """Turns token ids into text as they come (models.incremental.IncrementalDecoder)."""

    def push(self, token_id: int) -> str:
        """Text that became certain with this token."""
        ...

    def flush(self) -> str:
        """Text still held back."""
        ...


class StopChecker:
    """Collects a request's text and says when it ends.

    A stop token ends the request and is not part of the text; a stop string ends it where the string begins.
    """

    def __init__(
        self, decoder: TextDecoder, *, stop_token_ids: Collection[int], stop_strings: Sequence[str], max_tokens: int
    ) -> None:
        self._decoder = decoder
        self._stop_token_ids = frozenset(stop_token_ids)
        self._stop_strings = tuple(stop_strings)
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self.text = ""

    @property
    def by_text(self) -> bool:
        """May the text decide the end? If not, `ends_with` knows it from the tokens alone."""
        return bool(self._stop_strings)

    def ends_with(self, token_id: int, num_tokens: int) -> bool:
        """Does the request end with this token, its `num_tokens`th, whatever the text is?"""
        return token_id in self._stop_token_ids or num_tokens >= self._max_tokens

    def push(self, token_id: int) -> FinishReason | None:
        """Add one generated token; returns why the request ends with it, or None."""
        self._num_tokens += 1
        if token_id in self._stop_token_ids:
            self._append(self._decoder.flush())
            return "stop"
        if self._append(self._decoder.push(token_id)):
            return "stop"
        if self._num_tokens >= self._max_tokens:
            return "stop" if self._append(self._decoder.flush()) else "length"
        return None

    def finish(self) -> None:
        """The request ended for another reason: text that was held back belongs to it."""
        self._append(self._decoder.flush())

    def _append(self, text: str) -> bool:
        """Add text; True if a stop string is now in it, and cut there."""
        if not text:
            return False
        searched_from = len(self.text)
        self.text += text
        first = len(self.text)
        for stop in self._stop_strings:
            found = self.text.find(stop, max(0, searched_from - len(stop) + 1))
            if found != -1:
                first = min(first, found)
        stopped = first < len(self.text)
        self.text = self.text[:first]
        return stopped

    @property
    def certain_length(self) -> int:
        """Characters of `text` that no later token can take back: all but a beginning of a stop string at the end."""
        longest = max((len(stop) for stop in self._stop_strings), default=0)
        for held in range(min(longest - 1, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-held:]) for stop in self._stop_strings):
                return len(self.text) - held
        return len(self.text)
