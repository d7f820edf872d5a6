"""A proposer that stands for others: what it is told, they are told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch

from ssd_lab.drafting.proposer import Proposer
from ssd_lab.errors import ConfigError
from ssd_lab.rounds.sequence import PrefillChunk, Sequence


class ForwardingProposer(Proposer):
    """Base of proposers that ask others: say in `propose` who drafts which rows, and in `keep` whose trees they were.
    All parts see every prompt and every outcome, whoever drafted. Raises ConfigError for parts that cannot be joined.
    """

    def __init__(self, *parts: Proposer) -> None:
        self._parts = parts
        layers = {part.feature_layers for part in parts if part.feature_layers}
        if len(layers) > 1:
            raise ConfigError("both parts of the cascade feed on the target's features, at different layers")
        self.feature_layers = layers.pop() if layers else ()

    def prefill(self, chunks: list[PrefillChunk], features: list[torch.Tensor] | None = None) -> None:
        """All see the prompt."""
        for part in self._parts:
            part.prefill(chunks, features if part.feature_layers else None)

    def work_ahead(self) -> None:
        """All may prepare."""
        for part in self._parts:
            part.work_ahead()

    def observe(self, sequences: list[Sequence], features: torch.Tensor | None) -> None:
        """All see every outcome."""
        for part in self._parts:
            part.observe(sequences, features if part.feature_layers else None)

    def cached_tokens(self, sequence: Sequence) -> int:
        """What all have."""
        return min(part.cached_tokens(sequence) for part in self._parts)

    def suspend(self, sequence: Sequence) -> None:
        """All hear of it."""
        for part in self._parts:
            part.suspend(sequence)

    def remember(self) -> None:
        """All do."""
        for part in self._parts:
            part.remember()

    def restore(self) -> None:
        """All do."""
        for part in self._parts:
            part.restore()

    def forget(self, sequence: Sequence) -> None:
        """All forget the request."""
        for part in self._parts:
            part.forget(sequence)

    def report_losses(self, report: Callable[[str], None]) -> None:
        """Of any."""
        for part in self._parts:
            part.report_losses(report)

    def close(self) -> None:
        """Close all, also where closing one of them fails."""
        with ExitStack() as closing:
            for part in reversed(self._parts):
                closing.callback(part.close)
