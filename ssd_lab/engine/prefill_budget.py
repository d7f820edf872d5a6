"""How many prompt tokens are computed before a round: all there are, or few where other requests wait for the round."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.config import EngineConfig

MOST_GPU, MOST_CPU = 2048, 512
# Rows that take less than twice as long as one. Measured: an 8B target on an H200 takes 5.9 ms for 128 rows and 4.2 for
# one, most of it reading weights; the bundled one on a CPU, bfloat16, 11 ms for 32 and 5 for 16 or one.
CHEAP_GPU, CHEAP_CPU = 128, 24


@dataclass(frozen=True)
class PrefillBudget:
    """most: tokens before a round if nobody decodes. beside: where others do; None: as many as delay their round by at
    most twice its length. cheap: rows that take less than twice as long as one. rows_each: rows of a sequence in a
    round.
    """

    most: int
    beside: int | None
    cheap: int
    rows_each: int

    @classmethod
    def of(cls, config: EngineConfig, device: torch.device, lookahead: int) -> PrefillBudget:
        """The caller's choice, or what suits the device."""
        most, cheap = (MOST_GPU, CHEAP_GPU) if device.type == "cuda" else (MOST_CPU, CHEAP_CPU)
        return cls(config.max_prefill_tokens or most, config.max_prefill_beside, cheap, lookahead + 1)

    def tokens(self, *, decoding: int, waiting: int) -> int:
        """decoding: sequences of which the next round is not the first. waiting: those whose prompt is not computed
        yet; where they are more than the others, these wait longer for them.

        Twice as many rows as the round has take at most twice as long as the round: rows never get dearer by being
        more.
        """
        if not decoding:
            return self.most
        if self.beside is not None:
            return min(self.most, self.beside)
        delaying = max(self.cheap, 2 * self.rows_each * decoding)
        return min(self.most, delaying * max(1, waiting // decoding))
