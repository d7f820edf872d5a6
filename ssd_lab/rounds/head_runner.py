"""The runner of an EAGLE3 head (Li et al., arXiv 2503.01840)."""

from __future__ import annotations

from typing import Any

import torch

from ssd_lab.execution.executor import Executor
from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.eagle3.head import Eagle3Head
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.rounds.drafted import Drafted
from ssd_lab.rounds.runner import Runner


class HeadRunner(Runner):
    """Its outlook is normed states `[batch, rows, hidden]`: logits of them cover the draft's own vocabulary."""

    def __init__(self, head: Eagle3Head, cache: PagedKVCache, device: torch.device, executor: Executor) -> None:
        super().__init__(cache, device, executor)
        self.head = head

    @property
    def vocab_size(self) -> int:
        """The target's: draft tokens and their distributions are in its token ids."""
        return self.head.vocabulary.target_size

    @property
    def num_choices(self) -> int:
        """The draft's vocabulary."""
        return self.head.vocabulary.size

    def conditioned(self, step: StepInput, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows that have the target's features `[batch, rows, feature_size]`; returns as `Eagle3Head.hidden_states`.

        What is not a number in them counts as 0: the request that it comes from ends with an error, and its K/V must
        not spoil the blocks for the next one.
        """
        features = torch.nan_to_num(features, nan=0.0, posinf=0.0, neginf=0.0)
        return self.head.hidden_states(step, self.cache, self.head.combine(features))

    def continued(self, step: StepInput, carried: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows that feed on the head's own states `[batch, rows, hidden]`; returns as `Eagle3Head.hidden_states`."""
        return self.head.hidden_states(step, self.cache, carried)

    def logits_of(self, outlook: torch.Tensor) -> torch.Tensor:
        """Tokens outside the draft's vocabulary get a probability of 0."""
        return self.head.vocabulary.scatter_logits(self.head.logits(outlook))

    @property
    def kernels(self) -> Kernels[Any]:
        """The head's."""
        return self.head.kernels

    def named_logits(self, outlook: torch.Tensor) -> torch.Tensor:
        """Over the draft's vocabulary."""
        return self.head.logits(outlook)

    def in_target_ids(self, drafted: Drafted) -> Drafted:
        """Tokens outside the draft's vocabulary have probability 0."""
        vocabulary = self.head.vocabulary
        probs, raw = (
            None if own is None else vocabulary.scatter_probs(own) for own in (drafted.probs, drafted.raw_probs)
        )
        return Drafted(vocabulary.to_target(drafted.tokens), probs, drafted.token_probs, raw)
