"""An EAGLE3 head, its paged KV cache, one device: what the head's phases call, as `StepRunner` is for a model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from ssd_lab.decoding.sampling import SamplingBatch
from ssd_lab.execution.executor import Executor, PhaseFunction, Tensors
from ssd_lab.execution.host_copy import sent
from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.eagle3.head import Eagle3Head
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.phases.draft_chain import choose
from ssd_lab.phases.drawing import PLAIN, Drawing
from ssd_lab.rounds.drafted import Drafted
from ssd_lab.rounds.rows import causal_step_at


class HeadRunner:
    """Runs forwards of a head over its own KV cache, and phases made of them through an executor."""

    def __init__(self, head: Eagle3Head, cache: PagedKVCache, device: torch.device, executor: Executor) -> None:
        self.head = head
        self.cache = cache
        self.device = device
        self.executor = executor

    @property
    def block_size(self) -> int:
        """Tokens in one KV block."""
        return self.cache.block_size

    @property
    def vocab_size(self) -> int:
        """The target's: draft tokens and their distributions are in its token ids."""
        return self.head.vocabulary.target_size

    def call(self, name: str, static: Hashable, function: PhaseFunction, *inputs: torch.Tensor) -> Tensors:
        """A phase through the executor; see `Executor.call`."""
        return self.executor.call(name, static, function, *inputs)

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

    def choose(
        self,
        normed: torch.Tensor,
        sampling: SamplingBatch,
        uniforms: torch.Tensor | None,
        *,
        record: bool,
        drawing: Drawing = PLAIN,
        fan_out: torch.Tensor | None = None,
    ) -> Drafted:
        """Draw one token a row from normed states `[batch, rows, hidden]`: in the draft's vocabulary, given in the
        target's ids, where tokens outside have probability 0. Otherwise as `draft_chain.choose`.
        """
        chosen = choose(
            *(self.head.kernels, self.head.logits(normed), sampling, uniforms),
            record=record,
            drawing=drawing,
            fan_out=fan_out,
        )
        vocabulary = self.head.vocabulary
        probs, raw = (
            None if own is None else vocabulary.scatter_probs(own) for own in (chosen.probs, chosen.raw_probs)
        )
        return Drafted(vocabulary.to_target(chosen.tokens), probs, chosen.token_probs, raw)

    def target_logits(self, normed: torch.Tensor) -> torch.Tensor:
        """Logits `[batch, rows, target vocabulary]`; tokens outside the draft's vocabulary get a probability of 0."""
        return self.head.vocabulary.scatter_logits(self.head.logits(normed))

    def prefill(self, token_ids: Sequence[int], start: int, block_table: list[int], features: torch.Tensor) -> None:
        """Compute and keep K/V of rows `start` and after it: `features` `[rows, feature_size]` of the tokens there,
        each beside the token that follows it (`token_ids`).
        """
        for first in range(0, len(token_ids), LARGEST):  # so that K/V has the bits that a round would give it
            tokens = sent([token_ids[first : first + LARGEST]], self.device)
            step = causal_step_at(tokens, [start + first], [block_table], self.block_size)
            self.conditioned(step, features[None, first : first + LARGEST])
