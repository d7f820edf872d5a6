"""Any strategy, with a note taken of what it proposed and what came of it. Nothing else changes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import PrivateAttr, SerializeAsAny

from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.execution.structure import each_tensor
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import PrefillChunk, Sequence
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.strategies import StrategyConfig
from ssd_lab.strategies.step_sizes import StepSizes


@dataclass(frozen=True)
class Watched:
    """One sequence in one round.

    start: tokens before the round. row: of the proposal. emitted: tokens that entered the text. num_accepted, path:
    what verification decided.
    """

    request_id: int
    start: int
    proposal: Proposal
    row: int
    emitted: list[int]
    num_accepted: int
    path: list[int]


class WatchedStrategy(StrategyConfig):
    """Behaves as `inner` does."""

    strategy_name: ClassVar[str] = "watched"

    inner: SerializeAsAny[StrategyConfig]
    _seen: list[Watched] = PrivateAttr(default_factory=list)

    def take(self) -> list[Watched]:
        """What was seen since the last call."""
        seen, self._seen[:] = list(self._seen), []
        return seen

    @property
    def uses_draft(self) -> bool:
        """As the inner one."""
        return self.inner.uses_draft

    @property
    def overlaps(self) -> bool:  # type: ignore[override]  # a constant of most strategies
        """As the inner one."""
        return self.inner.overlaps

    def works_beside(self, link: str, device: str) -> bool:
        """As the inner one."""
        return self.inner.works_beside(link, device)

    def head_config(self, target: str, shape: ModelConfig) -> Eagle3Config | None:
        """As the inner one."""
        return self.inner.head_config(target, shape)

    @property
    def lookahead(self) -> int:
        """As the inner one."""
        return self.inner.lookahead

    @property
    def reserved_positions(self) -> int:
        """As the inner one."""
        return self.inner.reserved_positions

    @property
    def step_sizes(self) -> StepSizes:
        """As the inner one."""
        return self.inner.step_sizes

    @property
    def scenario(self) -> Scenario:
        """As the inner one."""
        return self.inner.scenario

    def build(self, resources: Resources) -> Proposer:
        """The inner one's proposer, watched."""
        return _WatchedProposer(self.inner.build(resources), self._seen)


class _WatchedProposer(Proposer):
    def __init__(self, inner: Proposer, seen: list[Watched]) -> None:
        self._inner, self._seen = inner, seen
        self.feature_layers, self.needs_outcomes = inner.feature_layers, inner.needs_outcomes
        # the next round may be proposed before the last one's outcome is known
        self._open: deque[tuple[Proposal, list[int]]] = deque()
        self._lengths: dict[int, int] = {}  # of texts, as far as outcomes are known

    def prefill(self, chunk: PrefillChunk, features: torch.Tensor | None = None) -> None:
        self._inner.prefill(chunk, features)

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        proposal = self._inner.propose(sequences, rows)
        self._open.append((_kept(proposal), [sequence.request_id for sequence in sequences]))
        return proposal

    def keep(self, paths: torch.Tensor) -> None:
        self._inner.keep(paths)

    def work_ahead(self) -> None:
        self._inner.work_ahead()

    def observe(self, sequences: list[Sequence], features: torch.Tensor | None) -> None:
        proposal, proposed = self._open.popleft()
        for sequence in sequences:
            own, length = sequence.request_id, len(sequence.token_ids)
            row = proposed.index(own)
            start = self._lengths.get(own, len(sequence.prompt_ids))
            self._lengths[own] = length
            emitted, accepted = sequence.token_ids[start:length], sequence.last_accepted or 0
            self._seen.append(Watched(own, start, proposal, row, emitted, accepted, list(sequence.last_path)))
        self._inner.observe(sequences, features)

    def cached_tokens(self, sequence: Sequence) -> int:
        return self._inner.cached_tokens(sequence)

    def suspend(self, sequence: Sequence) -> None:
        self._inner.suspend(sequence)

    def remember(self) -> None:
        self._inner.remember()

    def restore(self) -> None:
        self._inner.restore()

    def forget(self, sequence: Sequence) -> None:
        self._inner.forget(sequence)

    def close(self) -> None:
        self._inner.close()


def _kept(proposal: Proposal) -> Proposal:
    """A copy on the host: the next round is written over it."""
    tree = proposal.tree
    return replace(
        proposal,
        tokens=_on_host(proposal.tokens),
        probs=None if proposal.probs is None else _on_host(proposal.probs),
        tree=each_tensor(_on_host, tree),
    )


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", copy=True)
