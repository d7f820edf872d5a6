"""The model behind a draft worker: how draft tokens are made. Which rows get which is the worker's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ssd_lab.engine.host_copy import sent
from ssd_lab.engine.messages import PrefillMessage, RoundMessage
from ssd_lab.engine.phases.draft_chain import Drafted, draft_chain
from ssd_lab.engine.phases.draft_tree import DraftTree, TreeShape, draft_tree
from ssd_lab.engine.phases.drawing import PLAIN, Drawing
from ssd_lab.engine.placement import Placement
from ssd_lab.engine.runner import StepRunner


@dataclass(frozen=True)
class Wish:
    """How draft tokens are wanted. drawing: how each is drawn; cached: how many candidates will be cached at each
    place, where `drawing` asks for it; record: keep the draft's probabilities.
    """

    record: bool = False
    drawing: Drawing = PLAIN
    cached: tuple[int, ...] | None = None

    def cached_at(self, rows: int, device: torch.device) -> torch.Tensor | None:
        """The same for each of so many rows, `[rows, k]`."""
        return None if self.cached is None else sent(self.cached, device).expand(rows, -1)


class Drafter(ABC):
    """Makes chains and trees of draft tokens, in the target's token ids."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it works."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Length of its distributions."""

    @abstractmethod
    def prefill(self, message: PrefillMessage) -> None:
        """Compute K/V of a part of a text."""

    @abstractmethod
    def chain(self, message: RoundMessage, chosen: Sequence[int], k: int, wish: Wish) -> Drafted:
        """Draft k tokens for the `chosen` rows of a round, in that order."""

    @abstractmethod
    def tree(
        self, message: RoundMessage, draft_tokens: torch.Tensor, fan_out: torch.Tensor, shape: TreeShape, wish: Wish
    ) -> DraftTree:
        """Prepare for the outcomes of verifying `draft_tokens` `[batch, k]`; fan_out: which ones, for each row (on
        the host, as in `draft_tree`). Rows of the result that the round does not have are padding.
        """


class ModelDrafter(Drafter):
    """A model of its own, which reads what the target reads."""

    def __init__(self, runner: StepRunner, placement: Placement) -> None:
        self._runner, self._placement = runner, placement

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self._runner.device

    @property
    def vocab_size(self) -> int:
        """The model's."""
        return self._runner.decoder.config.vocab_size

    def prefill(self, message: PrefillMessage) -> None:
        """The same tokens at the same places."""
        self._runner.prefill(message.token_ids, message.start, message.block_table)

    def chain(self, message: RoundMessage, chosen: Sequence[int], k: int, wish: Wish) -> Drafted:
        """See `draft_chain`."""
        rows = message.rows if len(chosen) == len(message.lengths) else message.rows.select(chosen)
        placed = self._placement.place(rows)
        cached = wish.cached_at(len(placed), self.device)
        drafted = draft_chain(self._runner, placed, k, record=wish.record, drawing=wish.drawing, fan_out=cached)
        return drafted.first(len(chosen))

    def tree(
        self, message: RoundMessage, draft_tokens: torch.Tensor, fan_out: torch.Tensor, shape: TreeShape, wish: Wish
    ) -> DraftTree:
        """See `draft_tree`."""
        rows = self._placement.place(message.rows)
        tokens = padded(draft_tokens.to(self.device), len(rows))
        return draft_tree(
            *(self._runner, rows, tokens, sent(padded(fan_out, len(rows)), self.device), shape),
            record=wish.record,
            drawing=wish.drawing,
            next_fan_out=wish.cached_at(len(rows), self.device),
        )


def padded(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """With as many rows as a phase computes, the first one repeated."""
    missing = rows - tensor.shape[0]
    return tensor if missing == 0 else torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])
