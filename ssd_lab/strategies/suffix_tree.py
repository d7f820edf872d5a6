"""Suffix tree: guess the most frequent continuation of the text's longest repeated ending, as far as it seems sure.

After SuffixDecoding (arXiv 2411.04975): continuations weighed by how often they occurred, a longer draft
after a longer match, and of several matches the one that promises the most accepted tokens. Differs from it: one
chain instead of a tree, and the text of the request alone, prompt included, so that the rounds of a request do not
depend on what ran before it.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ssd_lab import Context, Draft, SequenceStrategy, register_strategy
from ssd_lab.strategies.components.suffix_automaton import SuffixAutomaton


@register_strategy
class SuffixTree(SequenceStrategy):
    """Drafts the most frequent continuation of the text's longest endings that occurred before. No model, certain
    guesses.
    """

    strategy_name: ClassVar[str] = "suffix_tree"
    reads_expected: ClassVar[bool] = True

    k: int = Field(16, ge=1, le=32, description="lookahead: the most tokens to guess in a round")
    per_match: float = Field(
        2.0, gt=0, le=32, description="tokens guessed for each matched token: a longer match is trusted further"
    )
    endings: int = Field(4, ge=1, le=64, description="how many endings, the longest first, are weighed up")
    least_probability: float = Field(
        0.1, ge=0, le=1, description="the guess ends where its chance, by the counts, falls below this"
    )

    @property
    def lookahead(self) -> int:
        """k draft tokens a round, at most."""
        return self.k

    def draft(self, context: Context) -> Draft | list[int]:
        """Of the longest endings' continuations the one with the most tokens to be expected, or none. What the caller
        expects goes first.
        """
        if expected := context.expected(self.k):
            return expected
        text = context.memory.setdefault(self.strategy_name, SuffixAutomaton())
        text.extend(context.token_ids[len(text) :])
        drafts: list[tuple[float, list[int]]] = [(0.0, [])]
        for (state, length), _ in zip(text.matches(), range(self.endings), strict=False):
            drafts.append(self._continue(text, state, max(1, int(self.per_match * length))))
        return max(drafts, key=lambda draft: draft[0])[1]  # the first, longest match wins a tie

    def _continue(self, text: SuffixAutomaton, state: int, limit: int) -> tuple[float, list[int]]:
        """The sum of the tokens' chances to be reached and right, and the tokens."""
        tokens: list[int] = []
        chance, expected = 1.0, 0.0
        while len(tokens) < min(self.k, limit) and (found := text.likeliest_next(state)) is not None:
            token, state, share = found
            chance *= share
            if chance < self.least_probability:
                break
            tokens.append(token)
            expected += chance
        return expected, tokens
