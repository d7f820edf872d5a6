"""The model behind a draft worker: how draft tokens are made. Which rows get which is the worker's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from ssd_lab.drafting.batch_control import DraftRound
from ssd_lab.execution.host_copy import sent
from ssd_lab.links.messages import PrefillMessage
from ssd_lab.phases.draft_chain import draft_chain
from ssd_lab.phases.draft_tree import BranchShape, ready_tree
from ssd_lab.phases.keep_path import KeepPathInputs, KeepPathPhase
from ssd_lab.phases.prefill import prefill
from ssd_lab.phases.reading import ModelReading, Reading
from ssd_lab.rounds.drafted import Drafted, DraftTree
from ssd_lab.rounds.drawing import PLAIN, Drawing
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.rows import Bounds, padded_rows
from ssd_lab.rounds.runner import Runner, StepRunner


@dataclass(frozen=True)
class DraftRequest:
    """How draft tokens are wanted. drawing: how each is drawn; cached: how many candidates will be cached at each
    place, where `drawing` asks for it.
    """

    drawing: Drawing = PLAIN
    cached: tuple[int, ...] | None = None

    def cached_at(self, rows: int, device: torch.device) -> torch.Tensor | None:
        """The same for each of so many rows, `[rows, k]`."""
        return None if self.cached is None else sent(self.cached, device).expand(rows, -1)


AnyRunner = TypeVar("AnyRunner", bound=Runner)


class Drafter(ABC, Generic[AnyRunner]):
    """Makes chains and trees of draft tokens, in the target's token ids. A kind of draft says how it reads a round.

    reads_ahead: can it read a round whose outcome lies on its device, with nothing told of it?
    """

    reads_ahead: bool = False

    def __init__(self, runner: AnyRunner, placement: Placement) -> None:
        self.runner, self._placement = runner, placement
        self._fan_out: tuple[torch.Tensor, torch.Tensor] | None = None  # the latest, here and on the device

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self.runner.device

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
        """Compute K/V of parts of texts."""

    @abstractmethod
    def reading(self, asked: DraftRound, chosen: Sequence[int]) -> tuple[Reading, Bounds]:
        """The `chosen` rows of a round on the device, in that order; rows behind them are padding."""

    def chain(self, asked: DraftRound, chosen: Sequence[int], k: int, request: DraftRequest) -> Drafted:
        """Draft k tokens for the `chosen` rows of a round, in that order."""
        reading, bounds = self.reading(asked, chosen)
        cached = request.cached_at(len(reading.rows), self.device)
        drafted = draft_chain(self.runner, reading, bounds, k, drawing=request.drawing, fan_out=cached)
        return drafted.first(len(chosen))

    def ready_tree(
        self,
        asked: DraftRound,
        draft_tokens: torch.Tensor,
        fan_out: torch.Tensor,
        shape: BranchShape,
        request: DraftRequest,
    ) -> Callable[[], DraftTree]:
        """What prepares for the outcomes of verifying `draft_tokens` `[batch, k]`, to be started before anything else
        is drafted, or never; fan_out: which ones, for each row (on the host, as in `TreeInputs`). Rows of the result
        that the round does not have are padding.
        """
        reading, bounds = self.reading(asked, range(len(asked.rows)))
        rows = len(reading.rows)
        return ready_tree(
            self.runner,
            reading,
            bounds,
            padded_rows(draft_tokens.to(self.device), rows),
            self._sent(padded_rows(fan_out, rows)),
            shape,
            drawing=request.drawing,
            next_fan_out=request.cached_at(rows, self.device),
        )

    def _sent(self, fan_out: torch.Tensor) -> torch.Tensor:
        """On the device, where it mostly is already."""
        if self._fan_out is None or not torch.equal(self._fan_out[0], fan_out):
            self._fan_out = fan_out.clone(), sent(fan_out, self.device)
        return self._fan_out[1]

    def keep(self, reading: Reading, paths: torch.Tensor, written: torch.Tensor) -> None:
        """The nodes `paths` `[rows, depth]` (then -1) of the trees that were grown with this reading, the last one, are
        accepted: bring their K/V, which was `written` as `GrownTree` says, to where committed tokens have theirs.
        """


class ModelDrafter(Drafter[StepRunner]):
    """A model of its own, which reads what the target reads."""

    reads_ahead = True

    @property
    def vocab_size(self) -> int:
        """The model's."""
        return self.runner.decoder.config.vocab_size

    @property
    def num_tokens(self) -> int:
        """The model's."""
        return self.runner.decoder.num_tokens

    def prefill(self, message: PrefillMessage) -> None:
        """The same tokens at the same places."""
        prefill(self.runner, message.parts)

    def reading(self, asked: DraftRound, chosen: Sequence[int]) -> tuple[Reading, Bounds]:
        """Tokens are all that it reads."""
        batch = asked.rows if len(chosen) == len(asked.rows) else asked.rows.select(chosen)
        rows, bounds = self._placement.place(batch)
        return ModelReading(rows), bounds

    def keep(self, reading: Reading, paths: torch.Tensor, written: torch.Tensor) -> None:
        """See `KeepPathPhase`. The target may pad to another bucket; what padding rows move stays in the dump."""
        rows = len(reading.rows)
        self.runner.run(KeepPathPhase(), KeepPathInputs(reading.rows, padded_rows(paths[:rows], rows), written))
