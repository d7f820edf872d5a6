"""Text as tokens come, in pieces that no later token changes."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_lab.models.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what bytes that are no character decode to
CONTEXT = 8  # tokens decoded again with new ones, so that pieces join as they do in the whole text
LONGEST = 64  # tokens decoded again before the window is moved on, so that the cost of a token stays bounded


class IncrementalDecoder:
    """Feed token ids; the returned pieces, joined with `flush()`, are the text that `decode` gives for all of them.

    Held back is only what a later token may still change: a character whose bytes are incomplete (they decode to one
    replacement character at the end), and a run of byte pieces ("<0xE2>"), which is text only if all of it is.

    behind: ids of a text that this one continues (a plain prompt): a decoder that drops the space at the beginning of
    a text then keeps the one between the two. Without a tokenizer every piece is empty.
    """

    def __init__(self, tokenizer: Tokenizer | None, behind: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # the latest tokens that are text
        self._shown = ""  # what of the window's text has been returned, or belongs to the text before
        if tokenizer is not None:
            self._window = _last_texts(tokenizer, behind)
            self._shown = tokenizer.decode(self._window)

    def push(self, token_id: int) -> str:
        """Text that became certain with this token."""
        if self._tokenizer is None or self._tokenizer.is_silent(token_id):
            return ""
        self._window.append(token_id)
        if self._tokenizer.is_byte(token_id):
            return ""
        text = self._tokenizer.decode(self._window)
        piece = self._new_part(text.removesuffix(REPLACEMENT))
        if len(self._window) > LONGEST:
            self._move_on(self._tokenizer, held=len(text) - len(self._shown))
        return piece

    def flush(self) -> str:
        """Text still held back: bytes that never became a character show as replacement characters."""
        return "" if self._tokenizer is None else self._new_part(self._tokenizer.decode(self._window))

    def _new_part(self, text: str) -> str:
        same = len(self._shown)
        while not text.startswith(self._shown[:same]):
            same -= 1  # a character begun in the text before has become whole, or is still held back
        if same == len(text):
            return ""
        self._shown = text
        return text[same:]

    def _move_on(self, tokenizer: Tokenizer, held: int) -> None:
        """Forget all but the last tokens. A cut inside a character is none inside the next: it has four bytes at most,
        and each token has one or more.
        """
        self._window = self._window[-CONTEXT:]
        text = tokenizer.decode(self._window)
        self._shown = text[: len(text) - held]


def _last_texts(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[int]:
    """The last tokens that are text; a run of byte pieces is not cut."""
    kept: list[int] = []
    for token_id in reversed(token_ids):
        if len(kept) >= CONTEXT and not tokenizer.is_byte(kept[-1]):
            break
        if not tokenizer.is_silent(token_id):
            kept.append(token_id)
    return kept[::-1]
