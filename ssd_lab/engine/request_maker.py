"""From prompts and sampling settings to requests that the engine will take, or an error that names all it would not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ssd_lab.config import SamplingParams
from ssd_lab.engine.call import Request
from ssd_lab.engine.engine import Engine
from ssd_lab.engine.prompts import EncodedPrompt, PromptEncoder, as_prompt, as_prompts, of_each
from ssd_lab.errors import ConfigError
from ssd_lab.models.text.tokenizer import Tokenizer

Params = SamplingParams | Sequence[SamplingParams] | None


class RequestMaker:
    """chat: wrap text in the tokenizer's chat template (None: if it has one). seed: the run's, of which each request
    that has none of its own gets one by its place.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer | None, *, chat: bool | None, seed: int) -> None:
        has_template = tokenizer is not None and tokenizer.has_chat_template
        self._encoder = PromptEncoder(tokenizer, chat=has_template if chat is None else chat)
        self._has_tokenizer = tokenizer is not None
        self._engine = engine
        self._seed = seed

    def encode(self, prompt: Any) -> EncodedPrompt:
        """One prompt as it would be run."""
        return self._encoder.encode(as_prompt(prompt))

    def one(self, prompt: Any, params: SamplingParams | None) -> list[Request]:
        """Of exactly one prompt."""
        return self.many([as_prompt(prompt)], params)

    def many(self, prompts: Any, params: Params, expected: str | None = None) -> list[Request]:
        """Of one prompt or many; params: one for all, or one each. expected: a text that outputs may turn out to be.
        Raises PromptError, ConfigError or CacheCapacityError before anything is run.
        """
        encoded = of_each(as_prompts(prompts), _once(self._encoder.encode))
        each = params_of_each(params, len(encoded))
        ids = self._encoder.expected(expected)
        return of_each(list(enumerate(zip(encoded, each, strict=True))), partial(self._request, ids))

    def _request(self, expected: list[int], numbered: tuple[int, tuple[EncodedPrompt, SamplingParams]]) -> Request:
        index, (prompt, params) = numbered
        if params.stop and not self._has_tokenizer:
            raise ConfigError("the target has no tokenizer, so no stop string can be found: give stop_token_ids")
        seed = self._seed_of(index) if params.seed is None else params.seed
        self._engine.check(prompt.token_ids, params, seed=seed)
        return Request(prompt.token_ids, params, seed, prompt.text, prompt.behind, expected)

    def _seed_of(self, index: int) -> int:
        digest = hashlib.blake2b(f"{self._seed}:{index}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def _once(encode: Callable[[Any], EncodedPrompt]) -> Callable[[Any], EncodedPrompt]:
    """The same, done once for equal prompts in a row: several texts of one prompt."""
    last: tuple[Any, EncodedPrompt] | None = None

    def encoded(prompt: Any) -> EncodedPrompt:
        nonlocal last
        if last is None or last[0] != prompt:
            last = prompt, encode(prompt)
        return last[1]

    return encoded


def params_of_each(params: Params, count: int) -> list[SamplingParams]:
    """One for each of `count` prompts."""
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if len(params) != count:
        raise ConfigError(
            f"{len(params)} sampling params were given for {count} prompts: give one for all, or one each"
        )
    return list(params)
