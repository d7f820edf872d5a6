"""The target's own answers to prompts: what its drafts are trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from ssd_lab.errors import PromptError
from ssd_lab.training.config import GenerationConfig
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.generate import Answer, BulkGenerator, Request
from ssd_lab.training.model import Llama

logger = logging.getLogger(__name__)

TEMPERATURES = (0.0, 0.7, 0.0, 1.0)
_CPU_ROWS = 32


def fitting_generation(config: GenerationConfig, target: Llama, device: torch.device | str) -> GenerationConfig:
    """The same with as many rows as half of the free memory of a GPU can hold, or a few on a CPU."""
    if not str(device).startswith("cuda"):
        return replace(config, rows=min(config.rows, _CPU_ROWS))
    shape = target.config
    cached = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * config.max_length_tokens * 2
    free, _ = torch.cuda.mem_get_info()
    return replace(config, rows=max(1, min(config.rows, int(0.5 * free) // cached)))


def own_answers(
    target: Llama,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    eos_ids: Sequence[int],
    temperatures: Sequence[float] = TEMPERATURES,
    passes: int = 2,
    budget_s: float | None = None,
    progress: bool = True,
) -> Corpus:
    """Answers to as many prompts (token ids) as the time allows, each `passes` times with different temperatures.

    Prompts longer than `config.max_prompt_tokens` are left out; PromptError if none is short enough.
    """
    kept = [list(prompt) for prompt in prompts if 2 <= len(prompt) <= config.max_prompt_tokens]
    if not kept:
        raise PromptError(f"none of {len(prompts)} prompts has 2 to {config.max_prompt_tokens} tokens")
    generator = BulkGenerator(target, config, eos_id=eos_ids)
    answers: list[Answer] = []
    with tqdm(total=len(kept) * passes, desc="answers", unit="answer", disable=not progress, mininterval=5) as bar:
        for batch in generator.run(_requests(kept, temperatures, passes), budget_s=budget_s):
            answers += batch
            bar.update(len(batch))
    if not answers:
        raise PromptError(f"no answer was finished in {budget_s} s: allow more time or shorter answers")
    corpus = Corpus.build(
        [kept[answer.index] for answer in answers],
        [[*answer.tokens.tolist(), *([] if answer.end_id is None else [answer.end_id])] for answer in answers],
    )
    logger.info("%d answers to %d prompts, %.2f M tokens", len(answers), len(kept), corpus.num_tokens / 1e6)
    return corpus


def greedy_answers(
    target: Llama, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, eos_ids: Sequence[int]
) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and their greedy answers (with the end token where it came), in the prompts' order."""
    config = replace(config, rows=max(1, min(len(prompts), config.rows)))
    generator = BulkGenerator(target, config, eos_id=eos_ids)
    stream = (Request(i, list(prompt), 0.0) for i, prompt in enumerate(prompts))
    answers = sorted((a for batch in generator.run(stream) for a in batch), key=lambda answer: answer.index)
    lines = [[*a.tokens.tolist(), *([] if a.end_id is None else [a.end_id])] for a in answers]
    return [list(prompts[a.index]) for a in answers], lines


def _requests(prompts: Sequence[list[int]], temperatures: Sequence[float], passes: int) -> Iterator[Request]:
    for number in range(passes):
        for index, prompt in enumerate(prompts):
            yield Request(index, prompt, temperatures[(index + number) % len(temperatures)])
