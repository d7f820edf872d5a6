"""Log-probabilities in the two shapes that the API has for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ssd_lab.models.text.incremental import REPLACEMENT
from ssd_lab.models.text.tokenizer import Tokenizer

Entry = dict[str, Any]  # `token_id`, `logprob` and `top`, as the engine tells them
LEAST = -9999.0  # in place of minus infinity, which JSON lacks


def of_chat(entries: Sequence[Entry], tops: int, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """`choices[].logprobs` of a chat completion."""
    content = []
    for entry in entries:
        likeliest = list(entry["top"].items())[:tops]
        content.append(
            {
                **_token(entry["token_id"], entry["logprob"], tokenizer),
                "top_logprobs": [_token(token_id, value, tokenizer) for token_id, value in likeliest],
            }
        )
    return {"content": content, "refusal": None}


def of_completion(
    entries: Sequence[Entry | None], tops: int, tokenizer: Tokenizer | None, *, offset: int, texts: Sequence[str] = ()
) -> dict[str, Any]:
    """`choices[].logprobs` of a completion. offset: characters before the first of these tokens. An entry is None for
    the first token of an echoed prompt, which nothing predicts; `texts` then has its text.
    """
    shown: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for place, entry in enumerate(entries):
        text = texts[place] if entry is None else _text(entry["token_id"], tokenizer)
        shown["tokens"].append(text)
        shown["text_offset"].append(offset)
        shown["token_logprobs"].append(None if entry is None else _finite(entry["logprob"]))
        shown["top_logprobs"].append(None if entry is None else _likeliest(entry, tops, tokenizer))
        offset += len(text)
    return shown


def _likeliest(entry: Entry, tops: int, tokenizer: Tokenizer | None) -> dict[str, float]:
    """The likeliest tokens and the one that was taken."""
    top = dict(list(entry["top"].items())[:tops])
    top.setdefault(entry["token_id"], entry["logprob"])
    return {_text(token_id, tokenizer): _finite(value) for token_id, value in reversed(top.items())}


def _token(token_id: int, logprob: float, tokenizer: Tokenizer | None) -> dict[str, Any]:
    text = _text(token_id, tokenizer)
    known = None if REPLACEMENT in text else list(text.encode())  # a part of a character: its bytes are not the text's
    return {"token": text, "logprob": _finite(logprob), "bytes": known}


def _text(token_id: int, tokenizer: Tokenizer | None) -> str:
    return f"token_id:{token_id}" if tokenizer is None else tokenizer.token_text(token_id)


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LEAST
