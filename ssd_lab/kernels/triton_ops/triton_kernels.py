"""The Triton kernels behind the interface that the decoder and the phases call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.decoding.acceptance import Outcome
from ssd_lab.decoding.branches import Fork, Found
from ssd_lab.decoding.decision import GreedyDecision, GreedyVerification
from ssd_lab.kernels.interface import Attention, HeadLayout, Kernels
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.places import CausalPlaces
from ssd_lab.kernels.product import Product, Unmade
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.kernels.triton_ops import activation, decision, forks, greedy, places, rope, sampled
from ssd_lab.kernels.triton_ops.attention_plan import SplitAttention
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionChoice, AttentionTuning, measured_attention
from ssd_lab.kernels.triton_ops.few_rows import TritonFewRows
from ssd_lab.kernels.triton_ops.linear_rule import tuning_of
from ssd_lab.kernels.triton_ops.linear_tuning import TuningChoice
from ssd_lab.kernels.triton_ops.norm import add_rms_norm


@dataclass(frozen=True)
class TritonPlan:
    """attention: that of the attention in use. positions, write_slots `[n]`."""

    attention: Any
    heads: HeadLayout
    rotary: RotaryTable
    positions: torch.Tensor
    write_slots: torch.Tensor


class TritonKernels(Kernels[TritonPlan]):
    """Every operation as a Triton kernel.

    tuning: how attention is cut, for all work or by heads and tiles. linear_tuning: how products of few rows are cut,
    by `[out, in]`; None for a shape leaves it to the library. pdl: programmatic dependent launch (compute capability
    9.0 and up): a kernel's launch overlaps the end of the one before it. attention: another in place of Triton's.
    """

    def __init__(
        self,
        tuning: AttentionTuning | AttentionChoice = measured_attention,
        *,
        linear_tuning: TuningChoice = tuning_of,
        pdl: bool = False,
        attention: Attention | None = None,
    ) -> None:
        self._attention = attention or SplitAttention(tuning, pdl=pdl)
        self._linear_tuning = linear_tuning
        self._pdl = pdl
        self.name, self.captures = self._attention.name, self._attention.captures

    def plan(
        self, step: StepInput, block_size: int, heads: HeadLayout, rotary: RotaryTable, dtype: torch.dtype
    ) -> TritonPlan:
        """See `Kernels`."""
        return TritonPlan(
            attention=self._attention.plan(step, block_size, heads, dtype),
            heads=heads,
            rotary=rotary,
            positions=step.positions.reshape(-1).contiguous(),  # a flat view may still have gaps
            write_slots=step.write_slots.reshape(-1).contiguous(),
        )

    def causal_places(self, starts: torch.Tensor, count: int, tables: torch.Tensor, block_size: int) -> CausalPlaces:
        """See `Kernels`."""
        return places.causal_places(starts, count, tables, block_size, pdl=self._pdl)

    def few_rows(self, weight: torch.Tensor, bias: torch.Tensor | None) -> TritonFewRows | None:
        """See `Kernels`. Only for dtypes of 2 bytes: tensor cores have no float32."""
        tuning = self._linear_tuning(*weight.shape)
        if tuning is None or weight.dtype not in (torch.bfloat16, torch.float16):
            return None
        return TritonFewRows(weight.contiguous(), bias, tuning, pdl=self._pdl)

    def add_rms_norm(
        self, hidden: torch.Tensor, delta: Product | None, norm: RmsNorm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernels`."""
        if isinstance(delta, Unmade):
            return delta.add_rms_norm(hidden, norm.weight, norm.eps)
        return add_rms_norm(hidden, delta, norm.weight, norm.eps, pdl=self._pdl)

    def rope_and_write(
        self,
        qkv: Product,
        layer_cache: torch.Tensor,
        plan: TritonPlan,
        query_norm: RmsNorm | None = None,
        key_norm: RmsNorm | None = None,
    ) -> torch.Tensor:
        """See `Kernels`."""
        return rope.rope_and_write(
            qkv,
            plan.rotary.cos,
            plan.rotary.sin,
            plan.positions,
            plan.write_slots,
            layer_cache,
            plan.heads,
            query_norm,
            key_norm,
            pdl=self._pdl,
        )

    def attention(self, queries: torch.Tensor, layer_cache: torch.Tensor, plan: TritonPlan) -> torch.Tensor:
        """See `Kernels`."""
        return self._attention.attend(queries, layer_cache, plan.attention)

    def gated_silu(self, gate_up: Product) -> torch.Tensor:
        """See `Kernels`."""
        return activation.gated_silu(gate_up, pdl=self._pdl)

    def greedy_pick(self, logits: torch.Tensor, *, want_probs: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `Kernels`."""
        return greedy.greedy_pick(logits, want_probs=want_probs, pdl=self._pdl)

    def sample(self, probs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        return sampled.sample(probs, uniforms, pdl=self._pdl)

    def accept_greedy(
        self, target_tokens: torch.Tensor, draft_tokens: torch.Tensor, num_drafted: torch.Tensor
    ) -> Outcome:
        """See `Kernels`."""
        return greedy.accept_greedy(target_tokens, draft_tokens, num_drafted, pdl=self._pdl)

    def accept_sampled(
        self,
        target_probs: torch.Tensor,
        draft_tokens: torch.Tensor,
        draft_probs: torch.Tensor | None,
        num_drafted: torch.Tensor,
        accept_uniforms: torch.Tensor,
        recovery_uniforms: torch.Tensor,
    ) -> Outcome:
        """See `Kernels`."""
        return sampled.accept_sampled(
            target_probs,
            draft_tokens,
            draft_probs,
            num_drafted,
            accept_uniforms,
            recovery_uniforms,
            pdl=self._pdl,
        )

    def greedy_decision(self, verified: GreedyVerification) -> GreedyDecision:
        """See `Kernels`."""
        return decision.greedy_decision(verified, pdl=self._pdl)

    def recovery_candidates(self, logits: torch.Tensor, draft_tokens: torch.Tensor, count: int) -> torch.Tensor:
        """See `Kernels`."""
        return forks.recovery_candidates(logits, draft_tokens, count)

    def fork(
        self,
        candidates: torch.Tensor,
        counts: torch.Tensor,
        branches: int,
        logits: torch.Tensor,
        choices: torch.Tensor | None = None,
        choice_probs: torch.Tensor | None = None,
    ) -> Fork:
        """See `Kernels`."""
        return forks.fork(candidates, counts, branches, logits, choices, choice_probs, pdl=self._pdl)

    def find_branch(self, prepared: torch.Tensor, outcomes: torch.Tensor, counts: torch.Tensor | None) -> Found:
        """See `Kernels`."""
        return forks.find_branch(prepared, outcomes, counts, pdl=self._pdl)
