"""The model behind a draft worker: how draft tokens are made. Which rows get which is the worker's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from ssd_lab.execution.host_copy import sent
from ssd_lab.links.messages import PrefillMessage, RoundMessage
from ssd_lab.phases.draft_chain import draft_chain
from ssd_lab.phases.draft_tree import TreeShape, draft_tree
from ssd_lab.phases.drawing import PLAIN, Drawing
from ssd_lab.phases.keep_path import keep_path
from ssd_lab.phases.reading import ModelReading, Reading
from ssd_lab.rounds.drafted import Drafted, DraftTree
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.runner import StepRunner


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


AnyReading = TypeVar("AnyReading", bound=Reading)


class Drafter(ABC, Generic[AnyReading]):
    """Makes chains and trees of draft tokens, in the target's token ids. A kind of draft says how it reads a round, and
    which phases its drafts are made by.
    """

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it works."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Length of its distributions."""

    @property
    def num_tokens(self) -> int:
        """Ids 0 .. num_tokens - 1 may be guessed; those behind them, if any, are padding."""
        return self.vocab_size

    @abstractmethod
    def prefill(self, message: PrefillMessage) -> None:
        """Compute K/V of a part of a text."""

    @abstractmethod
    def reading(self, message: RoundMessage, chosen: Sequence[int]) -> AnyReading:
        """The `chosen` rows of a round on the device, in that order; rows behind them are padding."""

    @abstractmethod
    def _chain(self, reading: AnyReading, k: int, wish: Wish, cached: torch.Tensor | None) -> Drafted:
        """k tokens after each row; cached: the wish's, for each of them."""

    @abstractmethod
    def _tree(
        self,
        reading: AnyReading,
        draft_tokens: torch.Tensor,
        fan_out: torch.Tensor,
        shape: TreeShape,
        wish: Wish,
        cached: torch.Tensor | None,
    ) -> DraftTree:
        """Branches for each row, as `draft_tree` says; cached: the wish's, for each of them."""

    def chain(self, message: RoundMessage, chosen: Sequence[int], k: int, wish: Wish) -> Drafted:
        """Draft k tokens for the `chosen` rows of a round, in that order."""
        reading = self.reading(message, chosen)
        cached = wish.cached_at(len(reading.rows), self.device)
        return self._chain(reading, k, wish, cached).first(len(chosen))

    def tree(
        self, message: RoundMessage, draft_tokens: torch.Tensor, fan_out: torch.Tensor, shape: TreeShape, wish: Wish
    ) -> DraftTree:
        """Prepare for the outcomes of verifying `draft_tokens` `[batch, k]`; fan_out: which ones, for each row (on
        the host, as in `draft_tree`). Rows of the result that the round does not have are padding.
        """
        reading = self.reading(message, range(len(message.rows)))
        rows = len(reading.rows)
        tokens, own = padded(draft_tokens.to(self.device), rows), sent(padded(fan_out, rows), self.device)
        return self._tree(reading, tokens, own, shape, wish, wish.cached_at(rows, self.device))

    def keep(self, reading: AnyReading, paths: torch.Tensor, written: torch.Tensor) -> None:
        """The nodes `paths` `[rows, depth]` (then -1) of the trees that were grown with this reading, the last one, are
        accepted: bring their K/V, which was `written` as `GrownTree` says, to where committed tokens have theirs.
        """


class ModelDrafter(Drafter[ModelReading]):
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

    @property
    def num_tokens(self) -> int:
        """The model's."""
        return self._runner.decoder.num_tokens

    def prefill(self, message: PrefillMessage) -> None:
        """The same tokens at the same places."""
        self._runner.prefill(message.token_ids, message.start, message.block_table)

    def reading(self, message: RoundMessage, chosen: Sequence[int]) -> ModelReading:
        """Tokens are all that it reads."""
        rows = message.rows if len(chosen) == len(message.rows) else message.rows.select(chosen)
        return ModelReading(self._runner, self._placement.place(rows))

    def keep(self, reading: ModelReading, paths: torch.Tensor, written: torch.Tensor) -> None:
        """See `keep_path`. The target may pad to another bucket; what padding rows move stays in the dump."""
        rows = len(reading.rows)
        keep_path(self._runner, reading.rows, padded(paths[:rows], rows), written)

    def _chain(self, reading: ModelReading, k: int, wish: Wish, cached: torch.Tensor | None) -> Drafted:
        return draft_chain(self._runner, reading.rows, k, record=wish.record, drawing=wish.drawing, fan_out=cached)

    def _tree(
        self,
        reading: ModelReading,
        draft_tokens: torch.Tensor,
        fan_out: torch.Tensor,
        shape: TreeShape,
        wish: Wish,
        cached: torch.Tensor | None,
    ) -> DraftTree:
        return draft_tree(
            *(self._runner, reading.rows, draft_tokens, fan_out, shape),
            record=wish.record,
            drawing=wish.drawing,
            next_fan_out=cached,
        )


def padded(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """With as many rows as a phase computes, the first one repeated."""
    missing = rows - tensor.shape[0]
    return tensor if missing == 0 else torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])
