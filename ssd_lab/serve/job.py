"""What a request asks of an engine, whichever endpoint it came by."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from ssd_lab.config import SamplingParams
from ssd_lab.errors import SsdLabError
from ssd_lab.serve.chat import ChatRequest
from ssd_lab.serve.completions import DEFAULT_TOKENS, CompletionRequest
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.errors import ApiError, of_refusal
from ssd_lab.serve.fields import SamplingRequest
from ssd_lab.serve.served import Served

LONG_CHARACTERS = 20_000  # from here on a prompt is measured on another thread, so that others do not wait for it
WIDEST = 64  # characters of a token that no text has on average: a longer one does not fit, and need not be measured


@dataclass(frozen=True)
class Job:
    """prompts, params: of each text that is wanted, `n` in a row for each prompt of the request. logprobs: likeliest
    tokens to tell at each place (None: no log-probabilities). echo: repeat the prompts. generates: if not, the echo is
    all, and the one token that an engine makes at least is not told. expected: what the texts may turn out to be.
    """

    body: SamplingRequest
    served: Served
    prompts: list[Any]
    params: list[SamplingParams]
    is_chat: bool
    logprobs: int | None
    echo: bool = False
    generates: bool = True
    expected: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def n(self) -> int:
        """Texts for each prompt."""
        return self.body.choices

    def refusal(self, error: SsdLabError) -> ApiError:
        """What to answer where the engine will not take it."""
        return of_refusal(error, type(self.body).model_fields, prompt="messages" if self.is_chat else "prompt")


async def chat_job(body: ChatRequest, served: Served, config: ServeConfig) -> Job:
    """Of a conversation. Raises ApiError for what cannot be done."""
    _check_choices(body, 1, config)
    if body.expected is not None and not served.llm.strategy.reads_expected:
        raise ApiError(
            400,
            f"prediction: {served.llm.strategy.strategy_name} does not draft from it, and no field is dropped: ask a "
            "model whose strategy looks text up (prompt_lookup, suffix_tree, or a cascade with one of them)",
            param="prediction",
            code="unsupported_field",
        )
    characters = sum(len(part.text) for message in body.messages for part in message.content)
    _check_length(characters, served, "messages")
    _check_length(len(body.expected or ""), served, "prediction")
    conversation = body.conversation
    longest = body.longest
    _check_output(longest, config, "max_tokens" if body.max_tokens is not None else "max_completion_tokens")
    if longest is None:
        longest = max(1, await _room(body, served, conversation, "messages"))  # an engine says why it is too long
        longest = min(longest, config.max_output or longest)
    elif characters > LONG_CHARACTERS:
        await _room(body, served, conversation, "messages")
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    params = body.params(longest, 0 if logprobs is None else max(1, logprobs))
    return Job(body, served, [conversation] * body.choices, params, True, logprobs, expected=body.expected)


async def completion_job(body: CompletionRequest, served: Served, config: ServeConfig) -> Job:
    """Of prompts. Raises ApiError for what cannot be done."""
    _check_choices(body, len(body.prompts), config)
    longest = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    _check_output(body.max_tokens, config, "max_tokens")
    for prompt in body.prompts:
        _check_length(len(prompt) * (1 if isinstance(prompt, str) else WIDEST), served, "prompt")
        if len(prompt) > LONG_CHARACTERS and await _room(body, served, prompt, "prompt") < 1:
            longest_prompt = served.llm.memory_plan.max_model_len - 1
            raise ApiError(400, f"prompt: too long, the context holds {longest_prompt} tokens of it", param="prompt")
    params = body.params(max(1, longest), 0 if body.logprobs is None else max(1, body.logprobs))
    return Job(
        body,
        served,
        prompts=[prompt for prompt in body.prompts for _ in params],
        params=params * len(body.prompts),
        is_chat=False,
        logprobs=body.logprobs,
        echo=bool(body.echo),
        generates=longest > 0,
    )


def _check_choices(body: SamplingRequest, prompts: int, config: ServeConfig) -> None:
    if prompts * body.choices > config.max_choices:
        raise ApiError(
            400,
            f"{prompts * body.choices} texts were asked for (prompts times n), and {config.max_choices} is the most",
            param="n" if body.choices > 1 else "prompt",
        )


def _check_length(characters: int, served: Served, param: str) -> None:
    longest = served.llm.memory_plan.max_model_len
    if characters > longest * WIDEST:
        raise ApiError(400, f"{param}: too long, the context holds {longest} tokens of it: shorten it", param=param)


def _check_output(wanted: int | None, config: ServeConfig, param: str) -> None:
    if wanted is not None and config.max_output is not None and wanted > config.max_output:
        raise ApiError(400, f"{param}: {wanted} was asked for, and {config.max_output} is the most here", param=param)


async def _room(body: SamplingRequest, served: Served, prompt: Any, name: str) -> int:
    """Tokens that can come after a prompt."""
    try:
        return await asyncio.to_thread(served.llm.room_for, prompt)
    except SsdLabError as error:
        raise of_refusal(error, type(body).model_fields, prompt=name) from error
