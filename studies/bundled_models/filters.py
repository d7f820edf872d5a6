"""Which of the teacher's answers are worth learning from."""

from __future__ import annotations

import re
from collections import Counter

REFUSALS = (
    "as an ai",
    "as a language model",
    "i'm sorry, but",
    "i am sorry, but",
    "i cannot",
    "i can't",
    "i'm not able to",
    "i am not able to",
    "i don't have access",
    "i don't have the ability",
    "i'm unable",
    "i am unable",
    "smollm",
    "hugging face",
    "ai assistant",
    "ai model",
    "don't have personal",
    "helpful ai",
    "i don't have real-time",
)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def repeats(text: str, *, run_words: int = 4, limit: int = 3) -> bool:
    """Whether some run of words occurs more than `limit` times, or a sentence more than twice."""
    tokens = text.lower().split()
    runs = Counter(tuple(tokens[i : i + run_words]) for i in range(len(tokens) - run_words + 1))
    if runs and runs.most_common(1)[0][1] > limit:
        return True
    sentences = Counter(s.strip() for s in re.split(r"[.!?\n]+", text.lower()) if len(s.strip()) > 20)
    return bool(sentences) and sentences.most_common(1)[0][1] > 1


def contains_result(text: str, result: str) -> bool:
    """Whether `result` is the last number of the text: exercises end in their answer."""
    numbers = _NUMBER.findall(text)
    if not numbers:
        return False
    last = numbers[-1].replace(",", "")
    return float(last) == float(result)


def reject_reason(text: str, *, finished: bool = True, result: str | None = None) -> str | None:
    """Why an answer, or the beginning of one that was not finished, is left out; None where it stays."""
    if result is not None and not finished:
        return "no result before the token limit"
    if len(text.strip()) < 2:
        return "empty"
    if "\ufffd" in text:
        return "broken characters"
    lowered = text.lower()
    if any(phrase in lowered for phrase in REFUSALS):
        return "refusal or talk about itself"
    if repeats(text):
        return "repetition"
    letters = sum(c.isascii() for c in text)
    if letters < 0.95 * len(text):
        return "not English"
    if result is not None and not contains_result(text, result):
        return "wrong result"
    return None
