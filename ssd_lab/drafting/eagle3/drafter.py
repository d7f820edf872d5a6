"""A draft worker's EAGLE3 head: drafts from the features that come with every message."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F

from ssd_lab.drafting.batch_control import DraftRound
from ssd_lab.drafting.drafter import Drafter
from ssd_lab.drafting.eagle3.messages import EaglePrefill, EagleRound
from ssd_lab.execution.host_copy import sent
from ssd_lab.links.messages import PrefillMessage
from ssd_lab.phases.head_reading import HeadReading, NewFeatures
from ssd_lab.phases.prefill import head_prefill
from ssd_lab.phases.reading import Reading
from ssd_lab.rounds.head_runner import HeadRunner
from ssd_lab.rounds.rows import Bounds


class EagleDrafter(Drafter[HeadRunner]):
    """Answers `EaglePrefill` and `EagleRound`, on the target's device: features do not travel.

    Nothing is kept of an accepted path: the target's features give its K/V anew, at the beginning of the next round.
    """

    @property
    def vocab_size(self) -> int:
        """The target's."""
        return self.runner.vocab_size

    def prefill(self, message: PrefillMessage) -> None:
        """See `head_prefill`."""
        if not isinstance(message, EaglePrefill):
            raise TypeError(f"an EAGLE3 head reads features, and a {type(message).__name__} has none")
        head_prefill(self.runner, message.parts, [features.here() for features in message.features])

    def reading(self, asked: DraftRound, chosen: Sequence[int]) -> tuple[Reading, Bounds]:
        """The rows and what is new for them; padding rows learn nothing."""
        message = asked.message
        if not isinstance(message, EagleRound):
            raise TypeError(f"an EAGLE3 head reads features, and a {type(message).__name__} has none")
        rows, bounds = self._placement.place(asked.rows.select(chosen))
        missing, own = len(rows) - len(chosen), list(chosen)
        features = F.pad(message.features_of(chosen), (0, 0, 0, 0, 0, missing))
        token_ids = sent(F.pad(message.token_ids[own], (0, 0, 0, missing)), self.device)
        counts = sent(F.pad(message.counts[own], (0, missing)), self.device)
        return HeadReading(rows, NewFeatures(features, token_ids, counts)), bounds
