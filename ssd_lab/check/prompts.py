"""Enough prompts for a check: questions and tasks of several kinds about many things."""

from __future__ import annotations

_TASKS = (
    "Explain {} in simple words.",
    "Why is {} important?",
    "Write a short story about {}.",
    "Give three tips about {}.",
    "What would happen without {}?",
    "Describe {} to a child.",
    "Write a Python function that counts words about {}.",
    "What is the difference between {} and a river?",
    "Tell me something surprising about {}.",
    "How does one begin to learn about {}?",
)
_THINGS = (
    "the moon", "a bicycle", "bread", "rain", "the heart", "a library", "chess", "the sea", "a clock", "money",
    "sleep", "a garden", "music", "electricity", "a bridge", "the cat", "winter", "a map", "the internet", "honey",
    "a mountain", "friendship",
)  # fmt: skip


def check_prompts(count: int) -> list[str]:
    """The first `count` of them, neighbours of different kinds; they repeat after 220."""
    num_tasks, num_things = len(_TASKS), len(_THINGS)
    return [_TASKS[(i + i // num_things) % num_tasks].format(_THINGS[i % num_things]) for i in range(count)]
