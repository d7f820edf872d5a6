"""The decoder: Llama 3.x, SmolLM2 and Qwen3 in one, over a paged KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ssd_lab.kernels.activation import gated_silu
from ssd_lab.kernels.attention import AttentionPlan, paged_attention, plan_attention, write_kv
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.kernels.row_padding import RowPadding
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.kv_cache import PagedKVCache

POSITIONS_BEYOND_CONTEXT = 128  # a draft may guess past the end of the context; what it guesses there is never used


@dataclass(frozen=True)
class LayerWeights:
    """One layer: q, k, v in one product, gate and up in another; q/k norms for Qwen3 only."""

    input_norm: RmsNorm
    qkv: Linear
    output: Linear
    mlp_norm: RmsNorm
    gate_up: Linear
    down: Linear
    query_norm: RmsNorm | None = None
    key_norm: RmsNorm | None = None


class Decoder:
    """Runs forwards over a paged KV cache. Holds weights, no state between calls."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: torch.Tensor,
        layers: Sequence[LayerWeights],
        final_norm: RmsNorm,
        head: Linear,
        row_padding: RowPadding,
    ) -> None:
        self.config = config
        self.row_padding = row_padding
        self._embedding = embedding
        self._layers = list(layers)
        self._final_norm = final_norm
        self._head = head
        self._group = config.num_heads // config.num_kv_heads
        self._rope = RotaryTable(
            config.head_dim,
            config.rope_theta,
            config.rope_scaling,
            config.max_positions + POSITIONS_BEYOND_CONTEXT,
            embedding.device,
        )

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of weights and activations."""
        return self._embedding.dtype

    def linears(self) -> list[Linear]:
        """Every matrix product of a forward."""
        products = [self._head]
        for layer in self._layers:
            products += [layer.qkv, layer.output, layer.gate_up, layer.down]
        return products

    def forward(
        self, step: StepInput, cache: PagedKVCache, *, features: dict[int, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Compute the rows, write their K/V, return the normed hidden states `[batch, rows, hidden]`.

        features: a dictionary whose keys are layer numbers is filled with the residual stream at these layers' input
        `[batch, rows, hidden]`.
        """
        batch, rows = step.token_ids.shape
        count = batch * rows
        padded = self.row_padding.padded(count)
        plan = plan_attention(step, cache.block_size, self._group, self.dtype)
        positions = step.positions.reshape(-1).clamp(max=self._rope.num_positions - 1)
        cos, sin = self._rope.at(positions, self.dtype)
        hidden = F.embedding(step.token_ids.reshape(-1), self._embedding)
        if padded > count:  # products are made of at least so many rows; everything else works row by row
            hidden = F.pad(hidden, (0, 0, 0, padded - count))
        for index, (layer, layer_cache) in enumerate(zip(self._layers, cache.layers, strict=True)):
            if features is not None and index in features:
                features[index] = hidden[:count].view(batch, rows, -1).clone()
            hidden = self._layer(layer, hidden, layer_cache, plan, cos, sin)
        return self._final_norm(hidden[:count]).view(batch, rows, -1)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `[n, vocab]`, float32, of normed hidden states `[n, hidden]`."""
        count = hidden.shape[0]
        padded = self.row_padding.padded(count)
        if padded > count:
            return self._head(F.pad(hidden, (0, 0, 0, padded - count)))[:count].float()
        return self._head(hidden).float()

    def _layer(
        self,
        layer: LayerWeights,
        hidden: torch.Tensor,
        layer_cache: torch.Tensor,
        plan: AttentionPlan,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        config = self.config
        count = plan.batch * plan.rows
        rotated = config.num_heads + config.num_kv_heads
        heads = layer.qkv(layer.input_norm(hidden)).view(hidden.shape[0], -1, config.head_dim)[:count]
        if layer.query_norm is not None and layer.key_norm is not None:
            heads = self._normed_heads(heads, layer.query_norm, layer.key_norm)
        query_key = self._rope.rotate(heads[:, :rotated], cos, sin)
        write_kv(layer_cache, torch.cat([query_key[:, config.num_heads :], heads[:, rotated:]], 1), plan)
        attended = paged_attention(query_key[:, : config.num_heads], layer_cache, plan)
        if hidden.shape[0] > count:
            attended = F.pad(attended, (0, 0, 0, hidden.shape[0] - count))
        hidden = hidden + layer.output(attended)
        return hidden + layer.down(gated_silu(layer.gate_up(layer.mlp_norm(hidden))))

    def _normed_heads(self, heads: torch.Tensor, query_norm: RmsNorm, key_norm: RmsNorm) -> torch.Tensor:
        """Qwen3: each q and k head is normed before the rotation."""
        q, k, v = heads.split([self.config.num_heads, self.config.num_kv_heads, self.config.num_kv_heads], 1)
        return torch.cat([query_norm(q), key_norm(k), v], 1)
