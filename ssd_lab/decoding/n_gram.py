"""What followed the last tokens of a text when they occurred before."""

from __future__ import annotations

from collections.abc import Sequence


def continuation(tokens: Sequence[int], longest: int, count: int) -> Sequence[int]:
    """Up to `count` tokens after the latest earlier occurrence of the last n tokens, n = longest .. 1, the first n that
    occurred before; nothing if none did.
    """
    last = len(tokens) - 1
    best, best_end = 0, 0
    for end in range(last, 0, -1):  # where what follows begins
        size = 0
        while size < min(longest, end) and tokens[end - 1 - size] == tokens[last - size]:
            size += 1
        if size > best:
            best, best_end = size, end
            if best == longest:
                break
    return tokens[best_end : best_end + count] if best else ()
