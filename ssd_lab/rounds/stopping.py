"""Where a request's text ends: token by token, so that a stop inside an accepted block ends exactly there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ssd_lab.config import SamplingParams

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
    special_texts: of tokens that the decoder passes over, by id. A stop string that names one of them is looked for in
    the text with these in their places, though they are not part of it.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        *,
        stop_token_ids: Collection[int],
        stop_strings: Sequence[str],
        max_tokens: int,
        special_texts: Mapping[int, str] | None = None,
    ) -> None:
        self._decoder = decoder
        self._stop_token_ids = frozenset(stop_token_ids)
        self._stop_strings = tuple(stop_strings)
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._named = {
            token_id: text
            for token_id, text in (special_texts or {}).items()
            if stop_strings and any(text in stop for stop in stop_strings)
        }
        self._searched = ""  # the text, and in it the special tokens that a stop string names
        self._hidden: list[tuple[int, int]] = []  # place and length of each of those
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
        if self._append(self._decoder.push(token_id)) or self._append_hidden(self._named.get(token_id, "")):
            return "stop"
        if self._num_tokens >= self._max_tokens:
            return "stop" if self._append(self._decoder.flush()) else "length"
        return None

    def finish(self) -> None:
        """The request ended for another reason: text that was held back belongs to it."""
        self._append(self._decoder.flush())

    def _append(self, text: str) -> bool:
        """Add text; True if a stop string is now in it, and cut there."""
        self.text += text
        return self._found_with(text)

    def _append_hidden(self, text: str) -> bool:
        """The same with a special token's, which is searched and not shown."""
        place = len(self._searched)
        if text:
            self._hidden.append((place, len(text)))
        stopped = self._found_with(text)
        if stopped and len(self._searched) == place:  # the text ends here, with a character that may be held back
            self.text += self._decoder.flush()
        return stopped

    def _found_with(self, text: str) -> bool:
        """Search what is new, and cut where the first stop string begins."""
        if not text:
            return False
        searched_from = len(self._searched)
        self._searched += text
        first = len(self._searched)
        for stop in self._stop_strings:
            found = self._searched.find(stop, max(0, searched_from - len(stop) + 1))
            if found != -1:
                first = min(first, found)
        stopped = first < len(self._searched)
        if stopped:
            self.text = self.text[: self._shown_before(first)]
            self._searched = self._searched[:first]
        return stopped

    def _shown_before(self, place: int) -> int:
        """Characters of `text` before a place in what is searched."""
        return place - sum(min(length, place - start) for start, length in self._hidden if start < place)

    @property
    def certain_length(self) -> int:
        """Characters of `text` that no later token can take back: all but a beginning of a stop string at the end."""
        longest = max((len(stop) for stop in self._stop_strings), default=0)
        for held in range(min(longest - 1, len(self._searched)), 0, -1):
            if any(stop.startswith(self._searched[-held:]) for stop in self._stop_strings):
                return self._shown_before(len(self._searched) - held)
        return len(self.text)


@dataclass(frozen=True)
class StopRules:
    """What a model ends its texts with, of which each request's own `StopChecker` is made.

    make_decoder: makes what turns tokens into text, given the ids of the text that goes before. special_texts: see
    `StopChecker`.
    """

    eos_token_ids: frozenset[int]
    make_decoder: Callable[[list[int]], TextDecoder]
    special_texts: Mapping[int, str]

    def of(self, params: SamplingParams, behind: list[int]) -> StopChecker:
        """A request's; behind: ids of the text that this one's continues."""
        stops = set(params.stop_token_ids)
        return StopChecker(
            self.make_decoder(behind),
            stop_token_ids=stops if params.ignore_eos else stops | self.eos_token_ids,
            stop_strings=params.stop,
            max_tokens=params.max_tokens,
            special_texts=self.special_texts,
        )
