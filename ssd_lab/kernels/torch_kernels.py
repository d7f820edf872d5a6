"""Kernels in plain torch: the reference, and what the CPU uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ssd_lab.decoding.acceptance import Outcome, accept_greedy, accept_sampled
from ssd_lab.decoding.branches import Fork, Found, find_branch, fork
from ssd_lab.decoding.decision import GreedyDecision, GreedyVerification, greedy_decision
from ssd_lab.decoding.sampling import likeliest, sample
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.kernels.attention import AttentionPlan, paged_attention, plan_attention, write_kv
from ssd_lab.kernels.interface import HeadLayout, Kernels
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.places import CausalPlaces, causal_places
from ssd_lab.kernels.product import Product, whole
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.kernels.step_input import StepInput


@dataclass(frozen=True)
class TorchPlan:
    """cos, sin `[n, 1, head_dim]`: the rotation of each row, in the model's dtype."""

    attention: AttentionPlan
    heads: HeadLayout
    rotary: RotaryTable
    cos: torch.Tensor
    sin: torch.Tensor


class TorchKernels(Kernels[TorchPlan]):
    """Every operation as torch has it; on any device."""

    name = "torch"

    def plan(
        self, step: StepInput, block_size: int, heads: HeadLayout, rotary: RotaryTable, dtype: torch.dtype
    ) -> TorchPlan:
        """See `Kernels`."""
        positions = step.positions.reshape(-1).clamp(0, rotary.num_positions - 1)
        cos, sin = rotary.at(positions, dtype)
        return TorchPlan(plan_attention(step, block_size, heads.group, dtype), heads, rotary, cos, sin)

    def causal_places(self, starts: torch.Tensor, count: int, tables: torch.Tensor, block_size: int) -> CausalPlaces:
        """See `Kernels`."""
        return causal_places(starts, count, tables, block_size)

    def few_rows(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """See `Kernels`: products are the library's."""

    def add_rms_norm(
        self, hidden: torch.Tensor, delta: Product | None, norm: RmsNorm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernels`."""
        total = hidden if delta is None else hidden + whole(delta)
        return total, norm(total)

    def rope_and_write(
        self,
        qkv: Product,
        layer_cache: torch.Tensor,
        plan: TorchPlan,
        query_norm: RmsNorm | None = None,
        key_norm: RmsNorm | None = None,
    ) -> torch.Tensor:
        """See `Kernels`."""
        num_heads, num_kv_heads = plan.heads.num_heads, plan.heads.num_kv_heads
        rotated = num_heads + num_kv_heads
        heads = whole(qkv).unflatten(-1, (-1, plan.heads.head_dim))
        if query_norm is not None and key_norm is not None:
            q, k, v = heads.split([num_heads, num_kv_heads, num_kv_heads], 1)
            heads = torch.cat([query_norm(q), key_norm(k), v], 1)
        query_key = plan.rotary.rotate(heads[:, :rotated], plan.cos, plan.sin)
        write_kv(layer_cache, torch.cat([query_key[:, num_heads:], heads[:, rotated:]], 1), plan.attention)
        return query_key[:, :num_heads]

    def attention(self, queries: torch.Tensor, layer_cache: torch.Tensor, plan: TorchPlan) -> torch.Tensor:
        """See `Kernels`."""
        return paged_attention(queries, layer_cache, plan.attention)

    def gated_silu(self, gate_up: Product) -> torch.Tensor:
        """See `Kernels`."""
        gate, up = whole(gate_up).chunk(2, -1)
        return F.silu(gate) * up

    def greedy_pick(self, logits: torch.Tensor, *, want_probs: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `Kernels`."""
        tokens = likeliest(logits)
        if not want_probs:
            return tokens, None
        probs = torch.softmax(logits, -1, dtype=torch.float32)  # one operation, where logsumexp is half a dozen
        return tokens, probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def sample(self, probs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        return sample(probs, uniforms)

    def accept_greedy(
        self, target_tokens: torch.Tensor, draft_tokens: torch.Tensor, num_drafted: torch.Tensor
    ) -> Outcome:
        """See `Kernels`."""
        return accept_greedy(target_tokens, draft_tokens, num_drafted)

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
        return accept_sampled(target_probs, draft_tokens, draft_probs, num_drafted, accept_uniforms, recovery_uniforms)

    def greedy_decision(self, verified: GreedyVerification) -> GreedyDecision:
        """See `Kernels`."""
        return greedy_decision(verified)

    def recovery_candidates(self, logits: torch.Tensor, draft_tokens: torch.Tensor, count: int) -> torch.Tensor:
        """See `Kernels`."""
        return recovery_candidates(logits, draft_tokens, count)

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
        return fork(candidates, counts, branches, logits, choices, choice_probs)

    def find_branch(self, prepared: torch.Tensor, outcomes: torch.Tensor, counts: torch.Tensor | None) -> Found:
        """See `Kernels`."""
        return find_branch(prepared, outcomes, counts)
