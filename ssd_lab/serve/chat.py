"""`/v1/chat/completions`: a conversation, answered."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from ssd_lab.serve.fields import ITEMS, SamplingRequest, Text, check_count, refuse

_TEXT_ROLES = Literal["system", "developer", "user", "assistant"]


class TextPart(BaseModel):
    """A part of a message or of a prediction."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: Text


def _content(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        raise ValueError(f"a content is a text or a list of text parts, not {type(value).__name__}")
    if len(value) > ITEMS:
        raise ValueError(f"holds {len(value)} parts, and {ITEMS} is the most")
    return value


_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
    "additionalProperties": False,
}
Content = Annotated[
    list[TextPart],
    BeforeValidator(_content),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _PART, "minItems": 1}]}),
    Field(min_length=1),
]


class ChatMessage(BaseModel):
    """One message; what tools, images and sounds need is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: _TEXT_ROLES
    content: Content
    name: Text | None = Field(None, description="told to the chat template, which may leave it out")

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, message: Any) -> Any:
        """What clients send back of an answer, and says nothing."""
        if not isinstance(message, dict):
            return message
        silent = ("refusal", "tool_calls", "function_call", "audio", "annotations", "reasoning_content")
        return {name: value for name, value in message.items() if name not in silent or value not in (None, [], "")}

    def as_prompt(self) -> dict[str, Any]:
        """For a chat template, which knows no role `developer`."""
        parts = [part.text for part in self.content]
        content: Any = parts[0] if len(parts) == 1 else [{"type": "text", "text": text} for text in parts]
        own = {"role": "system" if self.role == "developer" else self.role, "content": content}
        return own if self.name is None else {**own, "name": self.name}


def _counted(messages: Any) -> Any:
    if isinstance(messages, list):
        contents = [message.get("content") for message in messages if isinstance(message, dict)]
        parts = sum(len(content) for content in contents if isinstance(content, list))
        check_count(len(messages) + parts, "messages", "messages and parts")
    return messages


class Prediction(BaseModel):
    """A text that the answer is expected to be near: drafts are taken from it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["content"]
    content: Content


class ChatRequest(SamplingRequest):
    """Body of a chat completion."""

    refused: ClassVar[dict[str, tuple[Any, ...]]] = {
        **SamplingRequest.refused,
        "audio": (),
        "function_call": ("none",),
        "functions": ([],),
        "modalities": (["text"],),
        "parallel_tool_calls": (True, False),  # says how tools are called, and there are none
        "reasoning_effort": ("none",),
        "response_format": ({"type": "text"},),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: Annotated[list[ChatMessage], BeforeValidator(_counted)] = Field(
        min_length=1, description="the conversation so far"
    )
    max_tokens: int | None = Field(None, ge=1, description="longest answer in tokens; None: what the context holds")
    max_completion_tokens: int | None = Field(None, ge=1, description="the same under its newer name")
    prediction: Prediction | None = Field(None, description="what the answer may turn out to be, such as a file")
    logprobs: bool | None = Field(None, description="log-probabilities of each token")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="and of so many likeliest ones; needs logprobs")

    @model_validator(mode="after")
    def _together(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise refuse("top_logprobs", "needs logprobs: set that to true too")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise refuse("max_tokens", "differs from max_completion_tokens, its newer name: give one of them")
        return self

    @property
    def longest(self) -> int | None:
        """Tokens that are asked for at most."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    @property
    def expected(self) -> str | None:
        """The predicted text."""
        return None if self.prediction is None else "".join(part.text for part in self.prediction.content)

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """The messages as a prompt."""
        return [message.as_prompt() for message in self.messages]
