"""Prompt lookup: guess that what followed the last few tokens before follows them again.

After A. Saxena, "Prompt Lookup Decoding" (github apoorvumang/prompt-lookup-decoding, 2023). Written against the public
interface only (`ssd_lab.register_strategy`, `SequenceStrategy`, `Context`), as the example of a strategy of one's own.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ssd_lab import Context, Draft, SequenceStrategy, register_strategy


@register_strategy
class PromptLookup(SequenceStrategy):
    """Drafts the tokens that followed the latest earlier occurrence of the text's last n-gram. No model, certain
    guesses.
    """

    strategy_name: ClassVar[str] = "prompt_lookup"
    reads_expected: ClassVar[bool] = True

    k: int = Field(6, ge=1, le=32, description="lookahead: the most tokens to guess in a round")
    longest: int = Field(3, ge=1, le=16, description="longest n-gram looked for; longer ones are tried first")
    shortest: int = Field(
        1, ge=1, le=16, description="shortest n-gram looked for; short ones match often and err often"
    )

    @property
    def lookahead(self) -> int:
        """k draft tokens a round."""
        return self.k

    def draft(self, context: Context) -> Draft | list[int]:
        """Up to k tokens, or none if no n-gram occurred before. What the caller expects goes first."""
        if expected := context.expected(self.k):
            return expected
        tokens = tuple(context.token_ids)
        # where each n-gram that something follows ended last; the empty one ends where the previous call stopped
        ends = context.memory.setdefault(self.strategy_name, {})
        for end in range(ends.get((), 1), len(tokens)):
            for size in range(self.shortest, min(self.longest, end) + 1):
                ends[tokens[end - size : end]] = end
        ends[()] = len(tokens)
        for size in range(min(self.longest, len(tokens)), self.shortest - 1, -1):
            if end := ends.get(tokens[-size:]):
                return list(tokens[end : end + self.k])
        return []
