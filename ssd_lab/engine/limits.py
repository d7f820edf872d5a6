"""Sizes that an engine works within, and requests that do not fit them."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.config import SamplingParams
from ssd_lab.errors import CacheCapacityError, ConfigError, PromptError
from ssd_lab.rounds.block_manager import BlockManager


@dataclass(frozen=True)
class EngineLimits:
    """Sizes the engine works within. model_context: the most that max_model_len can be. lookahead: most draft tokens
    that a round may keep. reserved: cache positions past the committed tokens that it may write.
    """

    max_model_len: int
    model_context: int
    lookahead: int
    reserved: int
    vocab_size: int

    def check(self, prompt_ids: list[int], params: SamplingParams, seed: int, blocks: BlockManager) -> None:
        """Raise PromptError, ConfigError or CacheCapacityError for a request that could never finish."""
        if not -(2**63) <= seed < 2**63:
            raise ConfigError(f"seed {seed} does not fit in 64 bits: give one from -2**63 to 2**63 - 1")
        outside = [token for token in params.stop_token_ids if not 0 <= token < self.vocab_size]
        if outside:
            raise ConfigError(
                f"stop_token_ids {outside[:5]} are outside the vocabulary: the target's ids are 0 to "
                f"{self.vocab_size - 1}"
            )
        if not prompt_ids:
            raise PromptError("the prompt is empty: give at least one token")
        if len(prompt_ids) >= self.max_model_len:
            raise PromptError(
                f"the prompt has {len(prompt_ids)} tokens, and the context holds {self.max_model_len} with at least "
                f"one of them generated: shorten the prompt to at most {self.max_model_len - 1} tokens"
                f"{self._or_longer(len(prompt_ids) + 1)}"
            )
        outside = [token for token in prompt_ids if not 0 <= token < self.vocab_size]
        if outside:
            raise PromptError(f"token ids {outside[:5]} are outside the vocabulary of {self.vocab_size}")
        self._check_blocks(len(prompt_ids), params.max_tokens, blocks)

    def room_after(self, num_prompt: int, blocks: BlockManager) -> int:
        """The most tokens that a request with so long a prompt can generate; below 1 if it does not fit."""
        fitting = blocks.num_usable * blocks.block_size - self.reserved
        return min(self.max_model_len, fitting) - num_prompt

    def _or_longer(self, wanted: int) -> str:
        """What else helps: a larger max_model_len, as far as the model goes."""
        if wanted <= self.model_context:
            return f", or raise max_model_len to {wanted} or more (the model's context is {self.model_context})"
        return (
            f", or take a model with a longer context: {self.model_context} is this one's, whatever max_model_len says"
        )

    def _check_blocks(self, prompt: int, max_tokens: int, blocks: BlockManager) -> None:
        """Raise CacheCapacityError if the cache cannot hold the request when it has grown."""
        longest = min(prompt + max_tokens, self.max_model_len) + self.reserved
        needed, usable = blocks.blocks_for(longest), blocks.num_usable
        if needed <= usable:
            return
        fitting = usable * blocks.block_size - self.reserved - prompt
        enough = f"num_blocks={needed + blocks.num_blocks - usable}"
        shorter = f"lower max_tokens ({enough} or max_tokens={fitting} is enough)" if fitting > 0 else ""
        raise CacheCapacityError(
            f"the request can grow to {needed} KV blocks and the cache has {usable} in all: raise num_blocks, or "
            f"{shorter or f'shorten the prompt ({enough} is enough)'}"
        )
