"""How draft tokens are drawn: at which temperature, and how far away from what is cached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ssd_lab.decoding.saguaro import saguaro_distribution
from ssd_lab.decoding.sampling import SamplingBatch, in_float32, target_distribution
from ssd_lab.kernels.interface import Kernels
from ssd_lab.rounds.drafted import Drafted


@dataclass(frozen=True)
class Drawing:
    """The same for all rows of a run, so a captured graph may hold it.

    temperature: the draft's, for requests that sample (None: the request's own). coefficient: C of Saguaro sampling, 1
    for none. widest: a bound on the fan-outs that it is used with. record: keep the draft's probability of each token.
    keeps_raw: keep what was there before C, for the trace.
    """

    temperature: float | None = None
    coefficient: float = 1.0
    widest: int = 0
    record: bool = False
    keeps_raw: bool = False

    @property
    def modifies(self) -> bool:
        """Does it ask for a fan-out?"""
        return self.coefficient != 1.0

    def plain(self, logits: torch.Tensor, sampling: SamplingBatch) -> torch.Tensor:
        """The draft's distributions, given its logits, `[batch, rows, vocab]` both."""
        if self.temperature is not None:
            own = torch.where(sampling.temperature == 0, sampling.temperature, in_float32(self.temperature))
            sampling = replace(sampling, temperature=own)
        return target_distribution(logits, sampling)

    def modified(self, probs: torch.Tensor, fan_out: torch.Tensor | None = None) -> torch.Tensor:
        """What is drawn from, given the plain `probs` and, where it modifies, the fan-out `[batch, rows]` of each
        place.
        """
        if not self.modifies:
            return probs
        if fan_out is None:
            raise ValueError("Saguaro sampling needs the fan-out of each place")
        return saguaro_distribution(probs, fan_out, self.coefficient, self.widest)


PLAIN = Drawing()


def draw(
    kernels: Kernels[Any],
    logits: torch.Tensor,
    sampling: SamplingBatch,
    uniforms: torch.Tensor | None,
    *,
    drawing: Drawing = PLAIN,
    fan_out: torch.Tensor | None = None,
) -> Drafted:
    """Draw one token a row from the draft's logits `[batch, rows, vocab]`; tokens are `[batch, rows]`.

    uniforms `[batch, rows]`: None if all rows are greedy. fan_out `[batch, rows]`: of each place, where `drawing` asks.
    """
    shape = logits.shape[:-1]
    if uniforms is None:
        picked, token_probs = kernels.greedy_pick(logits.flatten(0, -2), want_probs=drawing.record)
        return Drafted(picked.view(shape), None, None if token_probs is None else token_probs.view(shape))
    raw = drawing.plain(logits, sampling)
    probs = drawing.modified(raw, fan_out)
    tokens = kernels.sample(probs.flatten(0, -2), uniforms.reshape(-1)).view(shape)
    token_probs = probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) if drawing.record else None
    return Drafted(tokens, probs, token_probs, raw if drawing.keeps_raw else None)
