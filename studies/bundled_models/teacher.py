"""What the teacher, an instruct model in ChatML's format, is asked."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from ssd_lab.training.own_answers import Question
from studies.bundled_models.prompts import Prompt

SYSTEM_PROMPT = "You are a helpful AI assistant. Answer briefly and clearly."


def chat_text(prompt: str) -> str:
    """The prompt in the teacher's chat format, up to where its answer begins."""
    return (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    )


def questions(
    prompts: Sequence[Prompt],
    tokens: Mapping[int, list[int]],
    *,
    samples: int,
    file_samples: int,
    temperatures: Sequence[float],
    seed: int,
) -> Iterator[Question]:
    """Every prompt that `tokens` has, by index, once per pass, in a new order each pass: a run may stop at any time."""
    order = list(tokens)
    rng = random.Random(seed)
    for sample in range(max(samples, file_samples)):
        rng.shuffle(order)
        for index in order:
            # Prompts from files are few and real: they are asked more often than the generated ones.
            limit = samples if prompts[index].own else file_samples
            if sample < limit:
                yield Question(index, tokens[index], temperatures[sample % len(temperatures)])
