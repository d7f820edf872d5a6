"""The distribution that a token should have had, and a number that is uniform exactly if it had it.

Written apart from the engine's own sampling code, in float64, so that one cannot hide the other's mistake.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssd_lab.check.statistics import Floats


@dataclass(frozen=True)
class Filters:
    """How the target's logits become the distribution that is sampled from."""

    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def as_params(self) -> dict[str, Any]:
        """As fields of SamplingParams."""
        return {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}

    def __str__(self) -> str:
        parts = [f"top_k={self.top_k}"] * (self.top_k > 0) + [f"top_p={self.top_p:g}"] * (self.top_p < 1)
        return ", ".join([f"temperature={self.temperature:g}", *parts, *[f"min_p={self.min_p:g}"] * (self.min_p > 0)])


@dataclass(frozen=True)
class Ordered:
    """Distributions sorted: `probs[i]` falls, `tokens[i]` says whose they are. `[rows, vocab]` both."""

    probs: Floats
    tokens: NDArray[np.int64]


def filtered(logits: torch.Tensor, filters: Filters) -> Ordered:
    """The distribution of each row of `logits` `[rows, vocab]`.

    Temperature, then the top_k likeliest, then the fewest of these whose sum reaches top_p of what is left, then those
    at least min_p times as likely as the likeliest.
    """
    scaled = logits.detach().to("cpu", torch.float64) / filters.temperature
    ordered, tokens = torch.softmax(scaled, dim=-1).sort(dim=-1, descending=True, stable=True)
    probs, ids = ordered.numpy(), tokens.numpy()
    if filters.top_k:
        probs[:, filters.top_k :] = 0
    if filters.top_p < 1:
        probs /= probs.sum(-1, keepdims=True)
        before = np.cumsum(probs, axis=-1) - probs
        probs[before >= filters.top_p] = 0
    if filters.min_p:
        probs[probs < filters.min_p * probs[:, :1]] = 0
    return Ordered(probs / probs.sum(-1, keepdims=True), ids)


def probabilities(logits: torch.Tensor, filters: Filters) -> Floats:
    """The same by token id, `[rows, vocab]`."""
    ordered = filtered(logits, filters)
    probs = np.empty_like(ordered.probs)
    np.put_along_axis(probs, ordered.tokens, ordered.probs, axis=-1)
    return probs


@dataclass(frozen=True)
class Uniforms:
    """One number for each token, uniform on [0, 1] and independent of the others if the token follows the target.

    by_likelihood: tokens laid side by side from the likeliest down, so accepting likely tokens too often pulls the
    numbers towards 0. by_shuffle: laid in a fixed random order, which sees faults that leave the ranks alone. probs:
    the token's own probability (0: it could not have come). surprise: minus its logarithm, less what that should be on
    average; surprise_variance: and how much that should vary.
    """

    by_likelihood: Floats
    by_shuffle: Floats
    probs: Floats
    surprise: Floats
    surprise_variance: Floats

    @classmethod
    def joined(cls, parts: list[Uniforms]) -> Uniforms:
        """All of these."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, wanted: NDArray[np.bool_]) -> Uniforms:
        """Some of the tokens."""
        return Uniforms(*(getattr(self, field.name)[wanted] for field in fields(self)))


class Transform:
    """The randomised probability integral transform: F(before the token) + V p(token), V uniform from this seed."""

    def __init__(self, vocab_size: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._place = random.permutation(vocab_size)  # of each token, in the fixed random order
        self._random = random

    def __call__(self, expected: Ordered, token_ids: list[int]) -> Uniforms:
        """Place each of the tokens, one a row of `expected`, within its distribution."""
        chosen = np.asarray(token_ids)[:, None]
        is_token = expected.tokens == chosen
        own = (expected.probs * is_token).sum(-1)
        spread = self._random.random(len(token_ids)) * own
        above = np.cumsum(is_token, axis=-1) == 0
        earlier = self._place[expected.tokens] < self._place[chosen]
        surprises = -np.log(np.where(expected.probs > 0, expected.probs, 1.0))
        mean = (expected.probs * surprises).sum(-1)
        variance = (expected.probs * (surprises - mean[:, None]) ** 2).sum(-1)
        return Uniforms(
            by_likelihood=(expected.probs * above).sum(-1) + spread,
            by_shuffle=(expected.probs * earlier).sum(-1) + spread,
            probs=own,
            surprise=-np.log(np.where(own > 0, own, 1.0)) - mean,
            surprise_variance=variance,
        )
