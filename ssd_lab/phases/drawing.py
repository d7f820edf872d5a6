"""How draft tokens are drawn: at which temperature, and how far away from what is cached."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ssd_lab.decoding.saguaro import saguaro_distribution
from ssd_lab.decoding.sampling import SamplingBatch, in_float32, target_distribution


@dataclass(frozen=True)
class Drawing:
    """The same for all rows of a run, so a captured graph may hold it.

    temperature: the draft's, for requests that sample (None: the request's own). coefficient: C of Saguaro sampling, 1
    for none. widest: a bound on the fan-outs that it is used with. keeps_raw: keep what was there before C, for the
    trace.
    """

    temperature: float | None = None
    coefficient: float = 1.0
    widest: int = 0
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
