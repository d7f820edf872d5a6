"""A round's outcome on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssd_lab.rounds.alternatives import Alternatives
from ssd_lab.rounds.verified_trees import VerifiedTrees


@dataclass(frozen=True)
class RoundProbabilities:
    """What a trace keeps of a round, float32, side by side in `numbers` `[batch, n]`.

    sampled: was anything drawn? drafted: did the draft tell its probabilities?
    """

    numbers: np.ndarray
    k: int
    sampled: bool
    drafted: bool

    @property
    def target(self) -> np.ndarray:
        """The target's probability of each draft token `[batch, k]`."""
        return self.numbers[:, : self.k]

    @property
    def recovery(self) -> np.ndarray:
        """The target's probability of the recovery token `[batch]`."""
        return self.numbers[:, self.k]

    @property
    def draft(self) -> np.ndarray | None:
        """The draft's probability of its own tokens `[batch, k]`; None: certain guesses."""
        return self.numbers[:, self.k + 1 : 2 * self.k + 1] if self.drafted else None

    @property
    def coins(self) -> np.ndarray | None:
        """The uniform number that each draft token was tested with `[batch, k]`; None at temperature 0, and of no
        meaning in trees, where siblings have one each.
        """
        return self.numbers[:, -self.k - 1 : -1] if self.sampled else None

    @property
    def recovery_coins(self) -> np.ndarray | None:
        """The uniform number that drew the recovery token `[batch]`; None at temperature 0."""
        return self.numbers[:, -1] if self.sampled else None


@dataclass(frozen=True)
class Verified:
    """What became of each row of a round.

    draft_tokens: of each row, padding included; of a tree the accepted path and, after it, first children down to a
    leaf. num_drafted: how many of them are real. finite: False for a row whose logits hold NaN or infinity.
    draft_finite: the same for the draft's probabilities. trees: where some were verified, if they are recorded.
    """

    draft_tokens: list[list[int]]
    num_drafted: list[int]
    num_accepted: list[int]
    recovery_tokens: list[int]
    finite: list[bool]
    draft_finite: list[bool]
    probabilities: RoundProbabilities | None
    alternatives: Alternatives | None = None
    trees: VerifiedTrees | None = None
