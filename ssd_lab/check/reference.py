"""The distribution that a token should have had, written apart from the engine's own sampling code, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ssd_lab.check.statistics import Floats


@dataclass(frozen=True)
class Filters:
    """How the target's logits become the distribution that is sampled from."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def cut(self) -> bool:
        """Do they leave tokens out?"""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def probabilities(logits: torch.Tensor, filters: Filters) -> Floats:
    """The distribution of each row of `logits` `[rows, vocab]`, by token id.

    Temperature, then the top_k likeliest, then the fewest of these whose sum reaches top_p of what is left, then those
    at least min_p times as likely as the likeliest.
    """
    scaled = logits.detach().to("cpu", torch.float64) / filters.temperature
    ordered, tokens = torch.softmax(scaled, dim=-1).sort(dim=-1, descending=True, stable=True)
    probs = ordered.numpy()
    if filters.top_k:
        probs[:, filters.top_k :] = 0
    if filters.top_p < 1:
        probs /= probs.sum(-1, keepdims=True)
        before = np.cumsum(probs, axis=-1) - probs
        probs[before >= filters.top_p] = 0
    if filters.min_p:
        probs[probs < filters.min_p * probs[:, :1]] = 0
    by_token = np.empty_like(probs)
    np.put_along_axis(by_token, tokens.numpy(), probs / probs.sum(-1, keepdims=True), axis=-1)
    return by_token
