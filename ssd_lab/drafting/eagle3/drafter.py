"""A draft worker's EAGLE3 head: drafts from the features that come with every message."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ssd_lab.drafting.drafter import Drafter, Wish
from ssd_lab.drafting.eagle3.messages import EaglePrefill, EagleRound
from ssd_lab.execution.host_copy import sent
from ssd_lab.links.messages import PrefillMessage, RoundMessage
from ssd_lab.phases.draft_tree import TreeShape
from ssd_lab.phases.eagle_chain import eagle_chain
from ssd_lab.phases.eagle_reading import HeadReading, NewFeatures
from ssd_lab.phases.eagle_tree import eagle_tree
from ssd_lab.phases.head_runner import HeadRunner
from ssd_lab.rounds.drafted import Drafted, DraftTree
from ssd_lab.rounds.placement import Placement


class EagleDrafter(Drafter[HeadReading]):
    """Answers `EaglePrefill` and `EagleRound`.

    Nothing is kept of an accepted path: the target's features give its K/V anew, at the beginning of the next round.
    """

    def __init__(self, runner: HeadRunner, placement: Placement) -> None:
        self._runner, self._placement = runner, placement

    @property
    def device(self) -> torch.device:
        """The target's: features do not travel."""
        return self._runner.device

    @property
    def vocab_size(self) -> int:
        """The target's."""
        return self._runner.vocab_size

    def prefill(self, message: PrefillMessage) -> None:
        """See `HeadRunner.prefill`."""
        if not isinstance(message, EaglePrefill):
            raise TypeError(f"an EAGLE3 head reads features, and a {type(message).__name__} has none")
        self._runner.prefill(message.token_ids, message.start, message.block_table, message.features.here())

    def reading(self, message: RoundMessage, chosen: Sequence[int]) -> HeadReading:
        """The rows and what is new for them; padding rows learn nothing."""
        if not isinstance(message, EagleRound):
            raise TypeError(f"an EAGLE3 head reads features, and a {type(message).__name__} has none")
        rows = self._placement.place(message.rows.select(chosen))
        missing = len(rows) - len(chosen)
        features = F.pad(message.features_of(chosen), (0, 0, 0, 0, 0, missing))
        token_ids = [message.token_ids[row] for row in chosen]
        token_ids += [[0] * features.shape[1]] * missing
        counts = [*(message.counts[row] for row in chosen), *[0] * missing]
        following, known = (sent(values, self.device, torch.int64) for values in (token_ids, counts))
        return HeadReading(self._runner, rows, NewFeatures(features, following, known))

    def _chain(self, reading: HeadReading, k: int, wish: Wish, cached: torch.Tensor | None) -> Drafted:
        return eagle_chain(reading, k, record=wish.record, drawing=wish.drawing, fan_out=cached)

    def _tree(
        self,
        reading: HeadReading,
        draft_tokens: torch.Tensor,
        fan_out: torch.Tensor,
        shape: TreeShape,
        wish: Wish,
        cached: torch.Tensor | None,
    ) -> DraftTree:
        return eagle_tree(
            *(reading, draft_tokens, fan_out, shape), record=wish.record, drawing=wish.drawing, next_fan_out=cached
        )
