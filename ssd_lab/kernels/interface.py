"""The operations of a forward and of a round that are worth a kernel: one interface, several implementations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from ssd_lab.decoding.acceptance import Outcome
from ssd_lab.decoding.branches import Fork, Found
from ssd_lab.decoding.decision import GreedyDecision, GreedyVerification
from ssd_lab.kernels.linear import FewRowsProduct
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.places import CausalPlaces
from ssd_lab.kernels.product import Product
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.kernels.step_input import StepInput

PlanT = TypeVar("PlanT")


@dataclass(frozen=True)
class HeadLayout:
    """How a row of the q/k/v product is cut: `num_heads` query heads, then `num_kv_heads` of K, then of V."""

    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def group(self) -> int:
        """Query heads that share one K/V head."""
        return self.num_heads // self.num_kv_heads


class Attention(ABC):
    """Attention alone, where a backend may exchange it: a plan for each forward, then one call a layer."""

    name: str
    captures: bool

    @abstractmethod
    def plan(self, step: StepInput, block_size: int, heads: HeadLayout, dtype: torch.dtype) -> Any:
        """What all layers of one forward share."""

    @abstractmethod
    def attend(self, queries: torch.Tensor, layer_cache: torch.Tensor, plan: Any) -> torch.Tensor:
        """See `Kernels.attention`."""


class Kernels(ABC, Generic[PlanT]):
    """What the decoder and the phases compute besides matrix products with weights, which are `Linear`'s.

    Every operation works row by row: a row's bits depend on nothing but that row, as far as the device's products
    allow. Where `captures`, all may be captured in a CUDA graph: none waits for the device or allocates by what it
    finds there.
    A layer's cache is `[slots, 2 * kv_heads, head_dim]` (K heads, then V heads); slot = block * block_size + offset.
    """

    name: str
    captures: bool = True  # False: the plan asks the device, so no forward can be captured in a CUDA graph

    @abstractmethod
    def plan(
        self, step: StepInput, block_size: int, heads: HeadLayout, rotary: RotaryTable, dtype: torch.dtype
    ) -> PlanT:
        """What all layers of one forward share, made once from its StepInput (within the captured region)."""

    @abstractmethod
    def causal_places(self, starts: torch.Tensor, count: int, tables: torch.Tensor, block_size: int) -> CausalPlaces:
        """As `places.causal_places`."""

    @abstractmethod
    def few_rows(self, weight: torch.Tensor, bias: torch.Tensor | None) -> FewRowsProduct | None:
        """The kernel for products of few rows with `weight` `[out, in]`; None if the library is to do them."""

    @abstractmethod
    def add_rms_norm(
        self, hidden: torch.Tensor, delta: Product | None, norm: RmsNorm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`hidden + delta` `[n, size]`, rounded to their dtype, and its norm; without delta the sum is `hidden`."""

    @abstractmethod
    def rope_and_write(
        self,
        qkv: Product,
        layer_cache: torch.Tensor,
        plan: PlanT,
        query_norm: RmsNorm | None = None,
        key_norm: RmsNorm | None = None,
    ) -> torch.Tensor:
        """Rotate q and k of `[n, (heads + 2 * kv_heads) * head_dim]`, store k and v at the plan's slots, return q.

        n is batch * rows of the plan. query_norm, key_norm: both or neither; applied to each head before the rotation
        (Qwen3). Returns `[n, heads, head_dim]`.
        """

    @abstractmethod
    def attention(self, queries: torch.Tensor, layer_cache: torch.Tensor, plan: PlanT) -> torch.Tensor:
        """Attention of `[n, heads, head_dim]` over the prefix and the ancestors of each row; `[n, heads * head_dim]`.

        A row that sees nothing (padding) gives finite numbers.
        """

    @abstractmethod
    def gated_silu(self, gate_up: Product) -> torch.Tensor:
        """silu(gate) * up of `[n, 2 * size]` (gate, then up); `[n, size]`."""

    @abstractmethod
    def greedy_pick(self, logits: torch.Tensor, *, want_probs: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """First largest logit `[n]` (int64) of `[n, vocab]`, and its softmax probability `[n]` (float32) if wanted.

        A row that holds NaN gives some index of the vocabulary.
        """

    @abstractmethod
    def sample(self, probs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """Tokens `[n]` (int64) by inverting the cumulative sum of `probs` `[n, vocab]` at `uniforms` `[n]` in (0, 1).

        Probabilities need not sum to 1. A token of probability 0 is never drawn; a row that holds NaN gives some index.
        """

    @abstractmethod
    def accept_greedy(
        self, target_tokens: torch.Tensor, draft_tokens: torch.Tensor, num_drafted: torch.Tensor
    ) -> Outcome:
        """As `decoding.acceptance.accept_greedy`."""

    @abstractmethod
    def accept_sampled(
        self,
        target_probs: torch.Tensor,
        draft_tokens: torch.Tensor,
        draft_probs: torch.Tensor | None,
        num_drafted: torch.Tensor,
        accept_uniforms: torch.Tensor,
        recovery_uniforms: torch.Tensor,
    ) -> Outcome:
        """As `decoding.acceptance.accept_sampled`; draft_probs None: every draft token was a certain guess."""

    @abstractmethod
    def greedy_decision(self, verified: GreedyVerification) -> GreedyDecision:
        """As `decoding.decision.greedy_decision`."""

    @abstractmethod
    def recovery_candidates(self, logits: torch.Tensor, draft_tokens: torch.Tensor, count: int) -> torch.Tensor:
        """As `decoding.tree.recovery_candidates`."""

    @abstractmethod
    def fork(
        self,
        candidates: torch.Tensor,
        counts: torch.Tensor,
        branches: int,
        logits: torch.Tensor,
        choices: torch.Tensor | None = None,
        choice_probs: torch.Tensor | None = None,
    ) -> Fork:
        """As `decoding.branches.fork`."""

    @abstractmethod
    def find_branch(self, prepared: torch.Tensor, outcomes: torch.Tensor, counts: torch.Tensor | None) -> Found:
        """As `decoding.branches.find_branch`."""
