"""Sizes that an engine works within, and requests that do not fit them."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.config import SamplingParams
from ssd_lab.engine.block_manager import BlockManager
from ssd_lab.errors import CacheCapacityError, ConfigError, PromptError


@dataclass(frozen=True)
class EngineLimits:
    """Sizes the engine works within. lookahead: most draft tokens that a round may keep. reserved: cache positions past
    the committed tokens that it may write.
    """

    max_model_len: int
    lookahead: int
    reserved: int
    vocab_size: int

    def check(self, prompt_ids: list[int], params: SamplingParams, seed: int, blocks: BlockManager) -> None:
        """Raise PromptError, ConfigError or CacheCapacityError for a request that could never finish."""
        if not -(2**63) <= seed < 2**63:
            raise ConfigError(f"seed {seed} does not fit in 64 bits")
        if not prompt_ids:
            raise PromptError("the prompt is empty: give at least one token")
        if len(prompt_ids) >= self.max_model_len:
            raise PromptError(
                f"the prompt has {len(prompt_ids)} tokens, and the context holds {self.max_model_len} with at least "
                "one of them generated: shorten the prompt or raise max_model_len"
            )
        outside = [token for token in prompt_ids if not 0 <= token < self.vocab_size]
        if outside:
            raise PromptError(f"token ids {outside[:5]} are outside the vocabulary of {self.vocab_size}")
        longest = min(len(prompt_ids) + params.max_tokens, self.max_model_len) + self.reserved
        needed = blocks.blocks_for(longest)
        if needed > blocks.num_usable:
            raise CacheCapacityError(
                f"the request can grow to {needed} KV blocks and the cache has {blocks.num_usable} in all: "
                "raise num_blocks, or lower max_tokens"
            )
