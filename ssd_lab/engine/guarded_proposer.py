"""The strategy's proposer as the engine sees it: what it does is checked, and a run outlives the loss of its draft."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from ssd_lab.drafting.proposer import NoProposer, Proposer
from ssd_lab.engine.limits import EngineLimits
from ssd_lab.errors import DraftWorkerError, ProposerError, SsdLabError
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import Sequence

Result = TypeVar("Result")


class GuardedProposer:
    """now: the proposer in use, NoProposer once a draft worker was lost. on_loss: told why. on_change: told of drafts
    that were lost, or came back, while others go on.

    What a proposer raises that is no error of ours becomes a ProposerError.
    """

    def __init__(
        self,
        proposer: Proposer,
        limits: EngineLimits,
        device: torch.device,
        on_loss: Callable[[str], None],
        on_change: Callable[[str], None],
    ) -> None:
        self.now = proposer
        proposer.report_losses(on_change)
        self._limits, self._device, self._on_loss = limits, device, on_loss

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """Draft tokens that are fit for a round, or none where the draft was lost."""
        proposal = self.do(lambda proposer: proposer.propose(sequences, rows))
        if isinstance(self.now, NoProposer):  # also where the draft was lost just now
            return self.now.propose(sequences, rows)
        if not isinstance(proposal, Proposal):
            raise ProposerError(f"the strategy's proposer returned {type(proposal).__name__}; return a Proposal")
        limits = self._limits
        problem = proposal.problem(len(sequences), limits.lookahead, limits.vocab_size, nodes=limits.reserved)
        if problem is not None:
            raise ProposerError(f"the strategy's proposal is wrong: {problem}")
        return proposal

    def do(self, work: Callable[[Proposer], Result]) -> Result | None:
        """What this work of the proposer's returns; None if its draft is lost in it."""
        try:
            return work(self.now)
        except DraftWorkerError as error:
            self.go_on_without_draft(error)
            return None
        except (SsdLabError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise ProposerError(
                f"the strategy's proposer raised {type(error).__name__}{_place(error)}: {error}"
            ) from error

    def go_on_without_draft(self, error: DraftWorkerError) -> None:
        """Decode autoregressively from now on."""
        warnings.warn(f"{error}; the run goes on without a draft, autoregressively", RuntimeWarning, stacklevel=2)
        self._on_loss(str(error))
        failed, self.now = self.now, NoProposer(self._device)
        failed.close()


def _place(error: Exception) -> str:
    """Where the author's own code was last, as ` in my_module.py, line 12`: what it called is named by the error."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("ssd_lab", "torch")
    ]
    return f" in {Path(frames[-1][0]).name}, line {frames[-1][1]}" if frames else ""
