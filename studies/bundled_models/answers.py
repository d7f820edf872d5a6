"""Many answers of unequal length in a few flat arrays, and their way through the filters."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssd_lab.models.text.tokenizer import Tokenizer
from ssd_lab.training.own_answers import Answer
from studies.bundled_models.filters import reject_reason
from studies.bundled_models.prompts import Prompt

_BEGINNING_TOKENS = 128  # what is kept of an answer that the token limit cut


@dataclass(frozen=True)
class Answers:
    """Answers in the order in which they were finished."""

    tokens: NDArray[np.uint16]  # [total], without end tokens
    starts: NDArray[np.int64]  # [answers + 1]
    prompt_index: NDArray[np.int32]  # [answers]
    temperature: NDArray[np.float32]  # [answers]
    finished: NDArray[np.bool_]  # [answers]

    @classmethod
    def collect(cls, batches: Iterable[Sequence[Answer]]) -> Answers:
        """Gather what the engine yields."""
        answers = [answer for batch in batches for answer in batch]
        texts = [answer.token_ids[:-1] if answer.finished else answer.token_ids for answer in answers]
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return cls(
            np.concatenate([np.zeros(0, np.uint16), *(np.array(text, dtype=np.uint16) for text in texts)]),
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            np.array([a.index for a in answers], dtype=np.int32),
            np.array([a.temperature for a in answers], dtype=np.float32),
            np.array([a.finished for a in answers], dtype=np.bool_),
        )

    def __len__(self) -> int:
        return len(self.prompt_index)

    def of(self, index: int) -> NDArray[np.uint16]:
        """The tokens of one answer."""
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    def save(self, path: Path) -> None:
        """Write one .npz file."""
        np.savez(path, **self.__dict__)

    @classmethod
    def load(cls, path: Path) -> Answers:
        """Read what `save` wrote."""
        with np.load(path) as values:
            return cls(**{name: values[name] for name in values.files})


@dataclass(frozen=True)
class Kept:
    """An answer that passed the filters; one that is not finished is only its beginning."""

    prompt_index: int
    text: str
    finished: bool = True


def filter_answers(
    answers: Answers, prompts: Sequence[Prompt], tokenizer: Tokenizer
) -> tuple[list[Kept], Counter[str]]:
    """The good answers, the same one for the same prompt only once, and how many were left out for which reason."""
    workers = max(1, min(15, (os.cpu_count() or 2) - 1))
    bounds = np.linspace(0, len(answers), workers * 4 + 1).astype(int)
    chunks = [(int(a), int(b)) for a, b in pairwise(bounds) if b > a]
    _SHARED.update(answers=answers, prompts=prompts, tokenizer=tokenizer)
    if len(answers) < 2_000:
        results = [_filter_chunk(chunk) for chunk in chunks]
    else:
        # Forked workers see the arrays without copying them.
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            results = pool.map(_filter_chunk, chunks, chunksize=1)
    _SHARED.clear()
    kept: list[Kept] = []
    counts: Counter[str] = Counter()
    seen: set[tuple[int, str]] = set()
    for good, reasons in results:
        counts.update(reasons)
        for item in good:
            key = (item.prompt_index, item.text)
            if key in seen:
                counts["duplicate"] += 1
                continue
            seen.add(key)
            kept.append(item)
    counts["kept"] = len(kept)
    return kept, counts


_SHARED: dict = {}  # what forked workers read; empty outside `filter_answers`


def _filter_chunk(bounds: tuple[int, int]) -> tuple[list[Kept], Counter[str]]:
    answers, prompts, tokenizer = _SHARED["answers"], _SHARED["prompts"], _SHARED["tokenizer"]
    good: list[Kept] = []
    reasons: Counter[str] = Counter()
    for i in range(*bounds):
        prompt_index = int(answers.prompt_index[i])
        prompt = prompts[prompt_index]
        finished = bool(answers.finished[i])
        # The token limit cuts long answers, and small models lose themselves in those: their beginnings are sound.
        tokens = answers.of(i) if finished else answers.of(i)[:_BEGINNING_TOKENS]
        text = tokenizer.decode(tokens.tolist()).strip()
        reason = reject_reason(text, finished=finished, result=prompt.result)
        if reason is None:
            good.append(Kept(prompt_index, text, finished))
        else:
            reasons[reason] += 1
    return good, reasons
