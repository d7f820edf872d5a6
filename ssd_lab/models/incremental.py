"""Text as tokens come, in pieces that no later token changes."""

from __future__ import annotations

from ssd_lab.models.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what an incomplete UTF-8 sequence decodes to
CONTEXT = 8  # settled tokens decoded again with new ones, so that pieces join as they do in the whole text
LONGEST = 64  # tokens decoded again before the window is moved on, so that the cost of a token stays bounded


class IncrementalDecoder:
    """Feed token ids; the returned pieces, joined with `flush()`, are the decoded text.

    Only the last character is ever held back, and only while it may be an unfinished one: bytes of a character that is
    still incomplete decode to exactly one replacement character at the end. Without a tokenizer every piece is empty.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # the latest tokens; those before it are settled
        self._boundaries: list[int] = []  # places in the window where the text ends with a whole character
        self._shown = ""  # what of the window's text has been returned

    def push(self, token_id: int) -> str:
        """Text that became certain with this token."""
        if self._tokenizer is None:
            return ""
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window)
        if not text.endswith(REPLACEMENT):
            self._boundaries.append(len(self._window))
        piece = self._new_part(text.removesuffix(REPLACEMENT))
        if len(self._window) > LONGEST:
            self._move_on(self._tokenizer)
        return piece

    def flush(self) -> str:
        """Text still held back: an incomplete character shows as the replacement character."""
        return "" if self._tokenizer is None else self._new_part(self._tokenizer.decode(self._window))

    def _new_part(self, text: str) -> str:
        if len(text) <= len(self._shown):
            return ""
        piece = text[len(self._shown) :]
        self._shown = text
        return piece

    def _move_on(self, tokenizer: Tokenizer) -> None:
        """Forget settled tokens, up to a place between whole characters."""
        cuts = [place for place in self._boundaries if place <= len(self._window) - CONTEXT]
        if not cuts:
            return
        cut = cuts[-1]
        whole = len(tokenizer.decode(self._window)) - len(self._shown)  # 1 while a character is held back, else 0
        self._window = self._window[cut:]
        self._boundaries = [place - cut for place in self._boundaries if place > cut]
        text = tokenizer.decode(self._window)
        self._shown = text[: len(text) - whole]
