"""Tokenised conversations on the training device, cut into packed microbatches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tokens = Sequence[int] | NDArray[Any]
_PADDING_PIECE = 256


@dataclass(frozen=True)
class Corpus:
    """Documents one after another, with the length of each prompt."""

    tokens: NDArray[Any]  # [total], uint16, or uint32 where ids are larger
    starts: NDArray[np.int64]  # [documents + 1]
    prompt_lengths: NDArray[np.int32]  # [documents]

    @classmethod
    def build(cls, prompts: Sequence[Tokens], answers: Sequence[Tokens]) -> Corpus:
        """Join each prompt with its answer (which carries its end token)."""
        lengths = np.array([len(p) + len(a) for p, a in zip(prompts, answers, strict=True)], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        largest = max((int(np.max(part)) for part in (*prompts, *answers) if len(part)), default=0)
        tokens = np.empty(int(starts[-1]), dtype=np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32)
        for start, prompt, answer in zip(starts, prompts, answers, strict=False):
            tokens[start : start + len(prompt)] = prompt
            tokens[start + len(prompt) : start + len(prompt) + len(answer)] = answer
        return cls(tokens, starts, np.array([len(p) for p in prompts], dtype=np.int32))

    @property
    def num_tokens(self) -> int:
        """All tokens, prompts included."""
        return int(self.starts[-1])

    @property
    def num_documents(self) -> int:
        """Conversations."""
        return len(self.prompt_lengths)

    def save(self, path: Path) -> None:
        """Write one .npz file."""
        np.savez(path, tokens=self.tokens, starts=self.starts, prompt_lengths=self.prompt_lengths)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        """Read what `save` wrote."""
        with np.load(path) as values:
            return cls(values["tokens"], values["starts"], values["prompt_lengths"])


class Microbatch(NamedTuple):
    """Packed documents; all tensors have the same shape in every microbatch."""

    tokens: Tensor  # [N] int64
    positions: Tensor  # [N] int64, from 0 in each document
    labels: Tensor  # [N] int64: the next token, -100 at each document's end and in the padding
    weights: Tensor  # [N] float32: the loss weight of predicting the label
    starts: Tensor  # [max_documents + 2 + N / 256] int32, the tail repeats N


def microbatches(
    corpus: Corpus, *, size_tokens: int, prompt_weight: float, seed: int, device: torch.device | str, skip: int = 0
) -> Iterator[Microbatch]:
    """Endless passes over the documents, in a new order each pass; no document is split.

    skip: batches to leave out at the beginning, which a resumed run has seen.
    """
    if corpus.num_documents == 0:
        raise ValueError("the corpus has no documents; every answer was filtered out or none was generated")
    rng = np.random.default_rng(seed)
    lengths = np.diff(corpus.starts)
    max_documents = max(8, size_tokens // 16)
    carried: list[int] = []
    number = 0
    while True:
        order = rng.permutation(corpus.num_documents)
        chosen, filled = carried, int(lengths[carried].sum()) if carried else 0
        for document in order:
            length = int(lengths[document])
            if filled + length > size_tokens or len(chosen) == max_documents:
                if number >= skip:
                    yield _pack(corpus, chosen, size_tokens, max_documents, prompt_weight, device)
                number += 1
                chosen, filled = [], 0
            chosen.append(int(document))
            filled += length
        carried = chosen


def _pack(
    corpus: Corpus,
    documents: list[int],
    size: int,
    max_documents: int,
    prompt_weight: float,
    device: torch.device | str,
) -> Microbatch:
    index = np.asarray(documents)
    begins, lengths = corpus.starts[index], (corpus.starts[index + 1] - corpus.starts[index])
    used = int(lengths.sum())
    new_starts = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.zeros(size, dtype=np.int64)
    positions[:used] = np.arange(used) - np.repeat(new_starts[:-1], lengths)
    tokens = np.zeros(size, dtype=np.int64)
    tokens[:used] = corpus.tokens[np.repeat(begins, lengths) + positions[:used]]
    positions[used:] = np.arange(size - used) % _PADDING_PIECE
    labels = np.full(size, -100, dtype=np.int64)
    labels[: max(used - 1, 0)] = tokens[1:used] if used else []
    labels[new_starts[1:] - 1] = -100
    in_prompt = positions[:used] < np.repeat(corpus.prompt_lengths[index], lengths) - 1
    weights = np.zeros(size, dtype=np.float32)
    weights[:used] = np.where(in_prompt, prompt_weight, 1.0)
    weights[labels == -100] = 0.0
    # Padding is cut into short documents of its own, so that attention stays within the length it was told.
    padding = np.arange(used + _PADDING_PIECE, size, _PADDING_PIECE)
    starts = np.full(max_documents + 2 + size // _PADDING_PIECE, size, dtype=np.int32)
    starts[: len(new_starts)] = new_starts
    starts[len(new_starts) : len(new_starts) + len(padding)] = padding
    arrays = (tokens, positions, labels, weights, starts)
    on_device = []
    for array in arrays:
        tensor = torch.from_numpy(array)
        if str(device).startswith("cuda"):
            tensor = tensor.pin_memory().to(device, non_blocking=True)
        on_device.append(tensor.to(device))
    return Microbatch(*on_device)
