"""What a prompt may be: text, token ids or chat messages; one or many; in lists, tensors or arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeVar

from ssd_lab.errors import PromptError, SsdLabError
from ssd_lab.models.text.tokenizer import Tokenizer

Message = dict[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
Given = TypeVar("Given")
Made = TypeVar("Made")

_ALLOWED = (
    "a prompt is a text, token ids (a list, or a one-dimensional tensor or array), or a list of chat messages "
    "(dictionaries with role and content); several are a list of those, or a two-dimensional tensor or array of ids"
)


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as it is run. text: None if ids were given. behind: ids that the output's text continues; an answer in a
    chat begins a text of its own.
    """

    text: str | None
    token_ids: list[int]
    behind: list[int]


class PromptEncoder:
    """Turns prompts into token ids. chat: wrap text in the tokenizer's chat template."""

    def __init__(self, tokenizer: Tokenizer | None, *, chat: bool) -> None:
        self._tokenizer = tokenizer
        self._chat = chat

    def encode(self, prompt: str | list[int] | list[Message]) -> EncodedPrompt:
        """One prompt, as `as_prompts` gives it."""
        tokenizer = self._tokenizer
        if not isinstance(prompt, str) and not (prompt and isinstance(prompt[0], dict)):
            return EncodedPrompt(None, prompt, behind=prompt)  # type: ignore[arg-type]
        if tokenizer is None:
            raise PromptError("the target has no tokenizer: give token ids instead of text")
        if isinstance(prompt, str):
            if not prompt.strip():
                raise PromptError("the prompt is empty: give some text")
            if not self._chat:
                ids = tokenizer.encode(prompt, add_special_tokens=True)  # such as Llama's begin-of-text
                return EncodedPrompt(prompt, ids, behind=ids)
            messages: list[Message] = [{"role": "user", "content": prompt}]
        else:
            messages = prompt
        text = tokenizer.apply_chat(messages, add_generation_prompt=True)
        return EncodedPrompt(prompt if isinstance(prompt, str) else text, tokenizer.encode(text), behind=[])

    def expected(self, text: str | None) -> list[int]:
        """Ids of a text that an output may turn out to be; none without one, or without a tokenizer."""
        return [] if text is None or self._tokenizer is None else self._tokenizer.encode(text)


def as_prompts(given: Any) -> list[str | list[int] | list[Message]]:
    """One prompt or many, as texts, lists of ids and lists of messages.

    Raises PromptError for anything else, naming what was given and where.
    """
    items = _items(given)
    if items is None:
        return [given]
    if not items:
        raise PromptError("no prompt was given")
    if all(_is_message(item) for item in items) or not any(_is_prompt(item) for item in items):
        return [_one(items)]
    return of_each(items, _one)


def as_prompt(given: Any) -> str | list[int] | list[Message]:
    """Exactly one prompt."""
    prompts = as_prompts(given)
    if len(prompts) != 1:
        raise PromptError(f"{len(prompts)} prompts were given where one is wanted")
    return prompts[0]


def of_each(given: Sequence[Given], make: Callable[[Given], Made]) -> list[Made]:
    """What `make` gives for each prompt. If it refuses some, one error of the first one's kind names them all."""
    made: list[Made] = []
    refused: list[tuple[int, SsdLabError]] = []
    for index, item in enumerate(given):
        try:
            made.append(make(item))
        except SsdLabError as error:
            refused.append((index, error))
    if not refused:
        return made
    first = refused[0][1]
    if len(given) == 1:
        raise first
    said = "; ".join(f"prompt {index} (of {len(given)}, counted from 0): {error}" for index, error in refused)
    raise type(first)(said) from first


def _one(given: Any) -> str | list[int] | list[Message]:
    items = _items(given)
    if items is None:
        return given
    if items and all(_is_message(item) for item in items):
        return [dict(item) for item in items]
    return [_token_id(item) for item in items]


def _items(given: Any) -> list[Any] | None:
    """What the given thing holds; None for a text, which is whole."""
    if isinstance(given, str):
        return None
    if isinstance(given, Mapping):
        hints = {"role": "put the message in a list", "input_ids": "give its input_ids"}
        hint = next((f": {hints[key]}" for key in hints if key in given), "")
        raise PromptError(f"a dictionary with {sorted(map(str, given))} was given{hint}; {_ALLOWED}")
    if hasattr(given, "ndim") and hasattr(given, "tolist"):  # a tensor or an array
        return _rows(given)
    if isinstance(given, bytes | bytearray | set | frozenset) or not isinstance(given, Iterable):
        raise PromptError(f"{_shown(given)} was given; {_ALLOWED}")
    return list(given)


def _rows(given: Any) -> list[Any]:
    """A tensor's or an array's ids, or its rows."""
    kind = str(given.dtype)
    if given.ndim not in (1, 2) or not any(word in kind for word in ("int", "str", "<U", "object")):
        raise PromptError(f"a {type(given).__name__} of shape {tuple(given.shape)} and {kind} was given; {_ALLOWED}")
    return given.tolist()


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping)


def _is_prompt(item: Any) -> bool:
    """Could the item of a list be a whole prompt, and not one id of a prompt?"""
    if isinstance(item, str | bytes | bytearray | Mapping):
        return True
    return isinstance(item, Iterable) and getattr(item, "ndim", 1) > 0


def _token_id(item: Any) -> int:
    if isinstance(item, SupportsIndex) and not isinstance(item, bool):
        try:
            return item.__index__()
        except TypeError:  # a tensor of something else than one whole number
            pass
    raise PromptError(f"{_shown(item)} is no token id; {_ALLOWED}")


def _shown(item: Any) -> str:
    text = repr(item)
    return f"{type(item).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
