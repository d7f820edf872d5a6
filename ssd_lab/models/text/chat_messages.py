"""Chat messages: dictionaries with a role and a content, which is a text or a list of text parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssd_lab.errors import PromptError

Message = dict[str, Any]

_ALLOWED = "a message is a dictionary with a role (a text) and a content (a text, or a list of text parts)"


def checked(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages as dictionaries; texts in lists of parts become parts. Raises PromptError, which names the first
    wrong message.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise PromptError(f"a conversation is a list of messages, not {type(messages).__name__}; {_ALLOWED}")
    if not messages:
        raise PromptError(f"the conversation is empty: give at least one message; {_ALLOWED}")
    return [_checked(message, f"message {number}") for number, message in enumerate(messages)]


def parts_of(text: str) -> list[dict[str, str]]:
    """A text as the list of its one part."""
    return [{"type": "text", "text": text}]


def joined(parts: Sequence[Mapping[str, Any]]) -> str:
    """The texts of parts as one, a line each."""
    return "\n".join(part["text"] for part in parts)


def _checked(message: Any, name: str) -> Message:
    if not isinstance(message, Mapping):
        raise PromptError(f"{name} is {type(message).__name__}; {_ALLOWED}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise PromptError(f"{name} has {'no role' if role is None else f'the role {role!r}'}; {_ALLOWED}")
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return dict(message)  # an assistant that only calls tools says nothing
    if isinstance(content, str):
        return dict(message)
    if not isinstance(content, list | tuple):
        has = "no content" if content is None else f"a content of type {type(content).__name__}"
        raise PromptError(f"{name} ({role}) has {has}; {_ALLOWED}")
    return {**message, "content": [_part(part, f"{name} ({role}), part {i}") for i, part in enumerate(content)]}


def _part(part: Any, name: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise PromptError(f"{name} is {type(part).__name__}: a part is {{'type': 'text', 'text': ...}}")
    if part.get("type", "text") != "text":
        raise PromptError(f"{name} is of type {part['type']!r}: only text parts are read, remove it")
    if not isinstance(part.get("text"), str):
        raise PromptError(f"{name} has no text: a part is {{'type': 'text', 'text': ...}}")
    return {**part, "type": "text"}
