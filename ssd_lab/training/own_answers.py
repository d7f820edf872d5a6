"""The target's own answers to prompts, made by the engine: drafts are trained on them and measured by them."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic

from ssd_lab.common.progress import progress_bar
from ssd_lab.config import SamplingParams
from ssd_lab.errors import PromptError
from ssd_lab.llm import LLM
from ssd_lab.models.files.checkpoint import read_shape
from ssd_lab.results import Output
from ssd_lab.training.config import AnswerSettings
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.kept_answers import KeptAnswers

logger = logging.getLogger(__name__)

TEMPERATURES = (0.0, 0.7, 0.0, 1.0)
CPU_BATCH = 32
LOGITS = 2**25  # of a batch: bounds the memory of a step with a large vocabulary
BATCHES_AT_ONCE = 16  # so many batches of questions are given to the engine together


@dataclass(frozen=True)
class Question:
    """A prompt to be answered once. index: the caller's number for it."""

    index: int
    token_ids: Sequence[int]
    temperature: float


@dataclass(frozen=True)
class Answer:
    """What came back for a question. token_ids: with the end token, unless the token limit cut it (not finished)."""

    index: int
    temperature: float
    token_ids: list[int]
    finished: bool


def answering(target: str, settings: AnswerSettings, *, device: str) -> LLM:
    """The target in an engine for many short answers; to be closed by whoever asks for it."""
    on_gpu = device.startswith("cuda")
    most = LOGITS // read_shape(target).vocab_size if on_gpu else CPU_BATCH
    max_batch = max(1, min(settings.max_batch, most))
    return LLM(
        target,
        strategy="autoregressive",
        progress=False,
        device=device,
        dtype="bfloat16" if on_gpu else "float32",
        max_batch=max_batch,
        max_model_len=settings.max_length_tokens,
        max_prefill_tokens=max(512, 16 * max_batch),  # short answers let many new prompts in at once
        record=False,
    )


def answers(
    llm: LLM,
    questions: Iterable[Question],
    settings: AnswerSettings,
    *,
    budget_s: float | None = None,
    kept: KeptAnswers | None = None,
) -> Iterator[list[Answer]]:
    """Answers in the order of the questions, a batch at a time, until the questions or the time run out.

    What is under way when the time is over is dropped. The same questions, settings and target give the same answers.
    kept: those that are there already, and where finished ones go, at Ctrl-C too.
    """
    end_s = None if budget_s is None else monotonic() + budget_s
    waiting, seeds = enumerate(questions), random.Random(settings.seed)
    while some := list(islice(waiting, BATCHES_AT_ONCE * llm.config.max_batch)):
        params = {number: _params(question, settings, seeds.getrandbits(63)) for number, question in some}
        found = {number: answer for number, _ in some if kept and (answer := kept.get(number))}
        asked = [(number, question.token_ids) for number, question in some if number not in found]
        on_step = None if end_s is None else lambda number, totals: monotonic() < end_s
        tokens = [token_ids for _, token_ids in asked]
        outputs = llm.run(tokens, [params[n] for n, _ in asked], on_step=on_step).outputs if asked else []
        is_over = end_s is not None and monotonic() >= end_s
        fresh = {n: _answer(output) for (n, _), output in zip(asked, outputs, strict=True) if _is_whole(output)}
        if kept is not None and fresh:
            kept.add(fresh)
        if not is_over and len(fresh) < len(asked):
            there = f"; {len(kept)} answers are kept" if kept else ""
            raise KeyboardInterrupt(f"interrupted while the target answers{there}")  # the engine gives back what it has
        found |= fresh
        yield [Answer(one.index, one.temperature, *found[number]) for number, one in some if number in found]
        if is_over:
            return


def own_answers(
    llm: LLM,
    prompts: Sequence[Sequence[int]],
    settings: AnswerSettings,
    *,
    passes: int = 2,
    budget_s: float | None = None,
    progress: bool = True,
    kept: KeptAnswers | None = None,
) -> Corpus:
    """Answers to as many prompts (token ids) as the time allows, each `passes` times with different temperatures.

    kept: as of `answers`. Prompts longer than `settings.max_prompt_tokens` are left out; PromptError if none is short
    enough.
    """
    short = [list(prompt) for prompt in prompts if 2 <= len(prompt) <= settings.max_prompt_tokens]
    if not short:
        raise PromptError(f"none of {len(prompts)} prompts has 2 to {settings.max_prompt_tokens} tokens")
    found: list[Answer] = []
    there = f", {len(kept)} of them there already" if kept else ""
    logger.info("asking the target for %d answers to %d prompts%s", len(short) * passes, len(short), there)
    with progress_bar(len(short) * passes, "answers", "answer", enabled=progress) as bar:
        for batch in answers(llm, every_pass(short, TEMPERATURES, passes), settings, budget_s=budget_s, kept=kept):
            found += batch
            bar.update(len(batch))
    if not found:
        raise PromptError(f"no answer was finished in {budget_s} s: allow more time or shorter answers")
    corpus = Corpus.build([short[answer.index] for answer in found], [answer.token_ids for answer in found])
    logger.info("%d answers to %d prompts, %.2f M tokens", len(found), len(short), corpus.num_tokens / 1e6)
    return corpus


def greedy_answers(llm: LLM, prompts: Sequence[Sequence[int]], settings: AnswerSettings) -> list[list[int]]:
    """The greedy answer to each prompt, with the end token where it came."""
    questions = (Question(index, prompt, 0.0) for index, prompt in enumerate(prompts))
    return [answer.token_ids for batch in answers(llm, questions, settings) for answer in batch]


def every_pass(prompts: Sequence[Sequence[int]], temperatures: Sequence[float], passes: int) -> Iterator[Question]:
    """Every prompt once per pass, with the next temperature each time."""
    for number in range(passes):
        for index, prompt in enumerate(prompts):
            yield Question(index, prompt, temperatures[(index + number) % len(temperatures)])


def _params(question: Question, settings: AnswerSettings, seed: int) -> SamplingParams:
    room = settings.max_length_tokens - len(question.token_ids)
    return SamplingParams(
        temperature=question.temperature,
        min_p=settings.min_p,
        max_tokens=max(1, min(settings.max_new_tokens, room)),
        seed=seed,
    )


def _answer(output: Output) -> tuple[list[int], bool]:
    return output.token_ids, output.finish_reason == "stop"


def _is_whole(output: Output) -> bool:
    return output.finish_reason != "cancelled"
