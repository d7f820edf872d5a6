"""From logits to the distribution that a request asks for, and from a distribution and a number to a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

SamplingRow = tuple[float, int, float, float, int]  # temperature, top_k, top_p, min_p, seed

COLDEST = float(np.finfo(np.float32).tiny)  # anything colder gives the same text, and may be 0 in float32


def in_float32(temperature: float) -> float:
    """The temperature as a float32 that means the same: none above 0 becomes 0, or a number so small that some
    processors take it for 0.
    """
    return max(temperature, COLDEST) if temperature > 0 else temperature


@dataclass(frozen=True)
class SamplingBatch:
    """Sampling settings of each row of a batch, all tensors `[batch]`.

    `all_greedy` and `any_filter` are known on the host, so that the common cases skip work without reading the device.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    seeds: torch.Tensor
    all_greedy: bool
    any_filter: bool

    @classmethod
    def from_rows(cls, rows: Sequence[SamplingRow], device: torch.device | str = "cpu") -> SamplingBatch:
        """Rows of (temperature, top_k, top_p, min_p, seed)."""
        temperature, top_k, top_p, min_p, seeds = zip(*rows, strict=True)
        return cls(
            temperature=torch.tensor([in_float32(value) for value in temperature], dtype=torch.float32, device=device),
            top_k=torch.tensor(top_k, dtype=torch.int64, device=device),
            top_p=torch.tensor(top_p, dtype=torch.float32, device=device),
            min_p=torch.tensor(min_p, dtype=torch.float32, device=device),
            seeds=torch.tensor(seeds, dtype=torch.int64, device=device),
            all_greedy=all(value == 0 for value in temperature),
            any_filter=any(k > 0 or p < 1.0 or m > 0.0 for _, k, p, m, _ in rows),
        )


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Index `[...]` of the first largest of `logits` `[..., vocab]`.

    On the CPU numpy finds it ten times as fast as torch does (21 rows of 4096: 12 against 149 us); both take the first
    of equal ones.
    """
    if logits.device.type == "cpu":
        return torch.from_numpy(np.argmax(logits.numpy(), -1))
    return logits.argmax(-1)


def target_distribution(logits: torch.Tensor, sampling: SamplingBatch) -> torch.Tensor:
    """Probabilities `[batch, rows, vocab]` (float32) that each request samples from, given logits `[batch, rows,
    vocab]`.

    Temperature first, then top-k, top-p on what is left, then min-p relative to the likeliest token; a row at
    temperature 0 is a one on its first largest logit.
    """
    temperature = sampling.temperature[:, None, None]
    greedy = temperature == 0
    below_best = logits - logits.amax(-1, keepdim=True)  # so that the coldest temperatures divide nothing to infinity
    probs = torch.softmax(below_best / torch.where(greedy, 1.0, temperature), dim=-1)
    if sampling.any_filter:
        probs = _filtered(probs, sampling)
    one_hot = torch.zeros_like(probs).scatter_(-1, likeliest(logits).unsqueeze(-1), 1.0)
    return torch.where(greedy, one_hot, probs)


def _filtered(probs: torch.Tensor, sampling: SamplingBatch) -> torch.Tensor:
    """Drop what top-k, top-p and min-p drop, and renormalise."""
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(probs.shape[-1], device=probs.device)
    top_k = sampling.top_k[:, None, None]
    kept = (rank < top_k) | (top_k == 0)
    ordered = torch.where(kept, ordered, 0.0)
    ordered = ordered / ordered.sum(-1, keepdim=True)
    before = ordered.cumsum(-1) - ordered
    top_p = sampling.top_p[:, None, None]
    kept = (before < top_p) | (top_p >= 1.0) | (rank == 0)  # the likeliest stays, also where top_p is 0 in float32
    kept &= ordered >= sampling.min_p[:, None, None] * ordered[..., :1]
    ordered = torch.where(kept, ordered, 0.0)
    ordered = ordered / ordered.sum(-1, keepdim=True)
    return torch.zeros_like(probs).scatter_(-1, order, ordered)


def sample(probs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Tokens `[...]` by inverting the cumulative distribution: `probs` `[..., vocab]`, `uniforms` `[...]` in (0, 1).

    A token of probability 0 is never returned: the first sum above the threshold is a sum that grew. Where probs are
    not numbers some token comes out; whoever made them has to notice.
    """
    cumulative = probs.cumsum(-1)
    threshold = uniforms.unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=probs.shape[-1] - 1)
