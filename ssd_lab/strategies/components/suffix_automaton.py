"""Every substring of a growing text, with how often it occurred: an online suffix automaton (Blumer et al. 1985)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class SuffixAutomaton:
    """Substrings that end at the same places share a state; state 0 is the empty one.

    Appending a token costs a constant on average, plus one step for each state of the longest suffix that occurred
    before, whose counts go up. At most two states for each token.
    """

    def __init__(self) -> None:
        self._next: list[dict[int, int]] = [{}]
        self._link: list[int] = [-1]
        self._length: list[int] = [0]
        self._count: list[int] = [0]
        self._end: list[int] = [0]
        self._whole = 0  # the state of the whole text

    def __len__(self) -> int:
        """Tokens of the text."""
        return self._length[self._whole]

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens to the text."""
        for token in tokens:
            self._append(token)

    def matches(self) -> Iterator[tuple[int, int]]:
        """States and lengths of the text's suffixes that occurred before, longest first; the empty one is left out."""
        state = self._link[self._whole]
        while state > 0:
            yield state, self._length[state]
            state = self._link[state]

    def likeliest_next(self, state: int) -> tuple[int, int, float] | None:
        """What followed this state most often (of equals, most recently): token, next state, share of the occurrences.

        Where the text ends, what followed the longest suffix that occurred elsewhere; None if nothing ever did.
        """
        while state > 0 and not self._next[state]:
            state = self._link[state]
        children = self._next[state]
        if state <= 0 or not children:
            return None
        token = max(children, key=lambda t: (self._count[children[t]], self._end[children[t]]))
        total = sum(self._count[child] for child in children.values())
        return token, children[token], self._count[children[token]] / total

    def _append(self, token: int) -> None:
        new = self._add({}, self._length[self._whole] + 1, link=0, count=0)
        state = self._whole
        while state >= 0 and token not in self._next[state]:
            self._next[state][token] = new
            state = self._link[state]
        if state >= 0:
            found = self._next[state][token]
            if self._length[found] > self._length[state] + 1:
                found = self._split(found, state, token)
            self._link[new] = found
        self._whole = new
        while new > 0:  # every suffix of the text occurs once more
            self._count[new] += 1
            self._end[new] = self._length[self._whole]
            new = self._link[new]

    def _split(self, found: int, state: int, token: int) -> int:
        """The shorter substrings of `found` now end in a place of their own: they move to a new state."""
        short = self._add(self._next[found].copy(), self._length[state] + 1, self._link[found], self._count[found])
        self._end[short] = self._end[found]
        while state >= 0 and self._next[state].get(token) == found:
            self._next[state][token] = short
            state = self._link[state]
        self._link[found] = short
        return short

    def _add(self, following: dict[int, int], length: int, link: int, count: int) -> int:
        self._next.append(following)
        self._length.append(length)
        self._link.append(link)
        self._count.append(count)
        self._end.append(0)
        return len(self._next) - 1
