"""Which characters of a streamed text are which token's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ssd_lab.chat.pieces import Piece
from ssd_lab.models.text.incremental import IncrementalDecoder
from ssd_lab.models.text.tokenizer import Tokenizer


class Attribution:
    """Cuts the text of chunks where another token's begins.

    A chunk's text may come later than its tokens, since a stop string may begin in it or a character be incomplete; so
    the tokens' texts wait until as many characters were streamed.
    """

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._decoder = IncrementalDecoder(tokenizer)
        self._waiting: deque[Piece] = deque()
        self._origin: str | None = None

    def push(self, token_id: int, origin: str | None) -> None:
        """The next token, and where it came from."""
        self._origin = origin
        self._add(self._decoder.push(token_id))

    def pieces(self, text: str, *, is_last: bool) -> Iterator[Piece]:
        """The streamed text, in pieces of one origin each."""
        if is_last:
            self._add(self._decoder.flush())
        left = text
        while left and self._waiting:
            first = self._waiting.popleft()
            taken, left = left[: len(first.text)], left[len(first.text) :]
            if len(taken) < len(first.text):
                self._waiting.appendleft(Piece(first.text[len(taken) :], first.origin))
            yield Piece(taken, first.origin)
        if left:
            yield Piece(left)

    def _add(self, text: str) -> None:
        if text:
            self._waiting.append(Piece(text, self._origin))
