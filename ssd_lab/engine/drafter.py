"""The model behind a draft worker: how draft tokens are made. Which rows get which is the worker's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from ssd_lab.engine.messages import PrefillMessage, RoundMessage
from ssd_lab.engine.phases.draft_chain import Drafted, draft_chain
from ssd_lab.engine.phases.draft_tree import DraftTree, draft_tree
from ssd_lab.engine.placement import Placement
from ssd_lab.engine.runner import StepRunner

Layout = tuple[list[int], list[int]]  # accepted length and rank of each branch of a row


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
    def chain(self, message: RoundMessage, chosen: Sequence[int], k: int, *, record: bool) -> Drafted:
        """Draft k tokens for the `chosen` rows of a round, in that order."""

    @abstractmethod
    def tree(
        self,
        message: RoundMessage,
        draft_tokens: torch.Tensor,
        layouts: Sequence[Layout],
        *,
        widest: int,
        record: bool,
    ) -> DraftTree:
        """Prepare for the outcomes of verifying `draft_tokens` `[batch, k]`; layouts: which ones, for each row. Rows of
        the result that the round does not have are padding.
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

    def chain(self, message: RoundMessage, chosen: Sequence[int], k: int, *, record: bool) -> Drafted:
        """See `draft_chain`."""
        rows = message.rows if len(chosen) == len(message.lengths) else message.rows.select(chosen)
        return draft_chain(self._runner, self._placement.place(rows), k, record=record).first(len(chosen))

    def tree(
        self,
        message: RoundMessage,
        draft_tokens: torch.Tensor,
        layouts: Sequence[Layout],
        *,
        widest: int,
        record: bool,
    ) -> DraftTree:
        """See `draft_tree`."""
        rows = self._placement.place(message.rows)
        tokens = padded(draft_tokens.to(self.device), len(rows))
        prefixes, ranks = placed_layouts(layouts, len(rows), self.device)
        return draft_tree(self._runner, rows, tokens, prefixes, ranks, widest=widest, record=record)


def padded(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """With as many rows as a phase computes, the first one repeated."""
    missing = rows - tensor.shape[0]
    return tensor if missing == 0 else torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])


def placed_layouts(layouts: Sequence[Layout], rows: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Accepted lengths and ranks `[rows, branches]` on the device."""
    both = padded(torch.tensor(layouts), rows).to(device)
    return both[:, 0], both[:, 1]
