"""A draft worker's EAGLE3 head: drafts from the features that come with every message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ssd_lab.engine.drafter import Drafter, Wish, padded
from ssd_lab.engine.eagle_messages import EaglePrefill, EagleRound
from ssd_lab.engine.head_runner import HeadRunner
from ssd_lab.engine.messages import PrefillMessage, RoundMessage
from ssd_lab.engine.phases.draft_chain import Drafted
from ssd_lab.engine.phases.draft_tree import DraftTree, TreeShape
from ssd_lab.engine.phases.eagle_chain import NewFeatures, eagle_chain
from ssd_lab.engine.phases.eagle_tree import eagle_tree
from ssd_lab.engine.placement import Placement
from ssd_lab.engine.rows import RowTensors


class EagleDrafter(Drafter):
    """Answers `EaglePrefill` and `EagleRound`."""

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

    def chain(self, message: RoundMessage, chosen: Sequence[int], k: int, wish: Wish) -> Drafted:
        """See `eagle_chain`."""
        rows, new = self._placed(message, chosen)
        return eagle_chain(self._runner, rows, new, k, record=wish.record).first(len(chosen))

    def tree(
        self, message: RoundMessage, draft_tokens: torch.Tensor, fan_out: torch.Tensor, shape: TreeShape, wish: Wish
    ) -> DraftTree:
        """See `eagle_tree`."""
        rows, new = self._placed(message, range(len(message.lengths)))
        tokens, own = padded(draft_tokens, len(rows)), padded(fan_out, len(rows)).to(self.device)
        return eagle_tree(self._runner, rows, new, tokens, own, shape, record=wish.record)

    def _placed(self, message: RoundMessage, chosen: Sequence[int]) -> tuple[RowTensors, NewFeatures]:
        """The rows on the device, and what is new for them; padding rows learn nothing."""
        if not isinstance(message, EagleRound):
            raise TypeError(f"an EAGLE3 head reads features, and a {type(message).__name__} has none")
        rows = self._placement.place(message.rows.select(chosen))
        missing = len(rows) - len(chosen)
        features = F.pad(message.features_of(chosen), (0, 0, 0, 0, 0, missing))
        token_ids = [message.token_ids[row] for row in chosen]
        token_ids += [[0] * features.shape[1]] * missing
        counts = [*(message.counts[row] for row in chosen), *[0] * missing]
        return rows, NewFeatures(features, self._sent(token_ids), self._sent(counts))

    def _sent(self, values: Any) -> torch.Tensor:
        """Whole numbers on the device, without waiting for it."""
        host = torch.tensor(values, dtype=torch.int64)
        return host if self.device.type == "cpu" else host.pin_memory().to(self.device, non_blocking=True)
