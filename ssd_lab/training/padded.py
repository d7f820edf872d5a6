"""Batches of whole conversations of similar length, padded to the longest: for attention that is not just causal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd_lab.training.corpus import Corpus

_POOL_BATCHES = 64  # conversations of so many batches are sorted by length together
_LENGTH_MULTIPLE = 16


class PaddedBatch(NamedTuple):
    """Conversations side by side."""

    tokens: Tensor  # [batch, length] int64, 0 past the end
    weights: Tensor  # [batch, length] float32: how much predicting the token after this one counts; 0 past the end
    lengths: Tensor  # [batch] int64


def batch_plan(corpus: Corpus, *, size_tokens: int, max_length: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Endless passes: the documents of each batch, whose padded size stays within `size_tokens`.

    The same arguments give the same batches, so a resumed run finds its place by leaving out what it has seen.
    """
    if corpus.num_documents == 0:
        raise ValueError("the corpus has no documents: no answer was generated")
    rng = np.random.default_rng(seed)
    lengths = np.minimum(np.diff(corpus.starts), max_length)
    pool = max(1, _POOL_BATCHES * size_tokens // max(1, int(lengths.mean())))
    while True:
        order = rng.permutation(corpus.num_documents)
        for begin in range(0, len(order), pool):
            chunk = order[begin : begin + pool]
            chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
            batches: list[list[int]] = [[]]
            for document in chunk:  # sorted, so the last one is the longest
                if batches[-1] and (len(batches[-1]) + 1) * padded_length(int(lengths[document])) > size_tokens:
                    batches.append([])
                batches[-1].append(int(document))
            for index in rng.permutation(len(batches)):
                yield np.array(batches[index], dtype=np.int64)


def padded_length(length: int) -> int:
    """Lengths are rounded up, so that few shapes occur."""
    return -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE


def padded_batch(
    corpus: Corpus, documents: NDArray[np.int64], *, max_length: int, prompt_weight: float, device: torch.device | str
) -> PaddedBatch:
    """Tokens and weights of these documents; long ones are cut."""
    starts = corpus.starts[documents]
    lengths = np.minimum(corpus.starts[documents + 1] - starts, max_length)
    columns = np.arange(padded_length(int(lengths.max())))
    inside = columns < lengths[:, None]
    tokens = corpus.tokens[np.where(inside, starts[:, None] + columns, 0)].astype(np.int64) * inside
    in_prompt = columns < corpus.prompt_lengths[documents][:, None] - 1
    weights = np.where(in_prompt, prompt_weight, 1.0) * (columns < lengths[:, None] - 1)
    arrays = (tokens, weights.astype(np.float32), lengths)
    return PaddedBatch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))
