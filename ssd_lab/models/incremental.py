"""Text as tokens come, in pieces that no later token changes."""

from __future__ import annotations

from ssd_lab.models.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what an incomplete UTF-8 sequence decodes to
WINDOW = 8  # tokens decoded again with each new one, so that pieces join as they do in the whole text


class IncrementalDecoder:
    """Feed token ids; the returned pieces, joined with `flush()`, are the decoded text.

    A piece is held back while the text ends inside a character. Without a tokenizer every piece is empty.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # tokens before this are settled
        self._shown = 0  # tokens before this have been returned

    def push(self, token_id: int) -> str:
        """Text that became certain with this token."""
        self._ids.append(token_id)
        return self._advance(final=False)

    def flush(self) -> str:
        """Text still held back: an incomplete character shows as the replacement character."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        if self._tokenizer is None or self._shown == len(self._ids):
            return ""
        before = self._tokenizer.decode(self._ids[self._start : self._shown])
        now = self._tokenizer.decode(self._ids[self._start :])
        if not final and now.endswith(REPLACEMENT) and len(self._ids) - self._shown < WINDOW:
            return ""
        if len(now) < len(before):
            return ""
        self._start = max(self._start, self._shown - WINDOW) if self._shown - self._start > 2 * WINDOW else self._start
        self._shown = len(self._ids)
        return now[len(before) :]
