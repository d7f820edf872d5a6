"""`/v1/completions`: prompts as text or token ids."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ssd_lab.serve.fields import SamplingRequest, check_count, refuse, whole_characters

DEFAULT_TOKENS = 16  # the API's own default
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_TEXT = {"type": "string", "minLength": 1}
_PROMPT_SCHEMA = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1},
    ]
}


def _one_or_many(value: Any) -> list[str | list[int]]:
    prompts = value if isinstance(value, list) and not _is_ids(value) else [value]
    check_count(len(prompts), "prompt", "prompts")
    if not prompts:
        raise refuse("prompt", "holds no prompt: give a text or token ids, or a list of them")
    for prompt in prompts:
        if not isinstance(prompt, str) and not _is_ids(prompt):
            raise refuse("prompt", f"is or holds {type(prompt).__name__}: give a text or token ids, or a list of them")
        if isinstance(prompt, str):
            whole_characters(prompt)
    return prompts


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


class CompletionRequest(SamplingRequest):
    """Body of a completion."""

    refused: ClassVar[dict[str, tuple[Any, ...]]] = {**SamplingRequest.refused, "suffix": ("",)}

    prompt: Annotated[Any, BeforeValidator(_one_or_many), WithJsonSchema(_PROMPT_SCHEMA)] = Field(
        description="one prompt or several, each a text or token ids"
    )
    max_tokens: int | None = Field(
        None, ge=0, description=f"longest output in tokens; None is {DEFAULT_TOKENS}, 0 is for echo alone"
    )
    logprobs: int | None = Field(None, ge=0, le=20, description="log-probabilities of each token and so many others")
    echo: bool | None = Field(None, description="the prompt before the output, with its log-probabilities if asked for")

    @model_validator(mode="after")
    def _something_to_do(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise refuse("max_tokens", "is 0: only a request with echo may generate nothing")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt."""
        return list(self.prompt)
