"""The decoder: Llama 3.x, SmolLM2 and Qwen3 in one, over a paged KV cache."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from ssd_lab.kernels.interface import HeadLayout, Kernels
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.product import Product
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.kernels.row_padding import RowPadding
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.draft_vocabulary import OUTSIDE_LOGIT
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
    """Runs forwards over a paged KV cache. Holds weights, no state between calls.

    num_tokens: ids 0 .. num_tokens - 1 can be produced; those behind them only pad the embedding, and their logits are
    so low that no sampling ever takes them (None: there are no such ids).
    """

    def __init__(
        self,
        config: ModelConfig,
        embedding: torch.Tensor,
        layers: Sequence[LayerWeights],
        final_norm: RmsNorm,
        head: Linear,
        row_padding: RowPadding,
        kernels: Kernels[Any],
        num_tokens: int | None = None,
    ) -> None:
        self.config = config
        self.num_tokens = min(config.vocab_size, head.out_features, num_tokens or config.vocab_size)
        self.row_padding = row_padding
        self.kernels = kernels
        self._embedding = embedding
        self._layers = list(layers)
        self._final_norm = final_norm
        self._head = head
        self._heads = HeadLayout(config.num_heads, config.num_kv_heads, config.head_dim)
        self._rope = self._rotary_table(config.max_positions)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of weights and activations."""
        return self._embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._embedding.device

    @property
    def embedding(self) -> torch.Tensor:
        """The embedding table `[vocab, hidden]`."""
        return self._embedding

    @property
    def output_head(self) -> Linear:
        """The product that makes logits of normed hidden states."""
        return self._head

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
        `[batch, rows, hidden]`; the number after the last layer's means the final norm's input.
        """
        batch, rows = step.token_ids.shape
        kernels = self.kernels
        plan = self.plan(step, cache)
        token_ids = step.token_ids.reshape(-1)
        if self._embedding.shape[0] < self.config.vocab_size:  # ids that the target pads with, in a prompt
            token_ids = token_ids.clamp(max=self._embedding.shape[0] - 1)
        hidden = F.embedding(token_ids, self._embedding)
        delta: Product | None = None  # what the layer before adds to the residual stream
        for index, (layer, layer_cache) in enumerate(zip(self._layers, cache.layers, strict=True)):
            hidden, normed = kernels.add_rms_norm(hidden, delta, layer.input_norm)
            if features is not None and index in features:
                features[index] = hidden.view(batch, rows, -1).clone()
            heads = layer.qkv.unsummed(normed)
            queries = kernels.rope_and_write(heads, layer_cache, plan, layer.query_norm, layer.key_norm)
            attended = layer.output.unsummed(kernels.attention(queries, layer_cache, plan))
            hidden, normed = kernels.add_rms_norm(hidden, attended, layer.mlp_norm)
            delta = layer.down.unsummed(layer.gate_up.gated(normed, kernels.gated_silu))
        hidden, normed = kernels.add_rms_norm(hidden, delta, self._final_norm)
        if features is not None and len(self._layers) in features:
            features[len(self._layers)] = hidden.view(batch, rows, -1).clone()
        return normed.view(batch, rows, -1)

    def plan(self, step: StepInput, cache: PagedKVCache) -> Any:
        """What the kernels of all layers share in a forward over this step."""
        return self.kernels.plan(step, cache.block_size, self._heads, self._rope, self.dtype)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `[n, vocab]`, float32, of normed hidden states `[n, hidden]`."""
        logits, vocab = self._head.wide(hidden), self.config.vocab_size
        if logits.shape[1] != vocab:
            return F.pad(logits[:, : self.num_tokens], (0, vocab - self.num_tokens), value=OUTSIDE_LOGIT)
        if self.num_tokens < vocab:
            logits[:, self.num_tokens :] = OUTSIDE_LOGIT
        return logits

    def fitted_to(self, target: ModelConfig, num_tokens: int) -> Decoder:
        """This decoder as a draft for a target: its weights, the target's ids and at least its positions.

        num_tokens: ids that the target can produce. Ids past this decoder's own get no probability, which verification
        allows for; past its own context it guesses worse, and nothing else.
        """
        config = self.config
        if (config.vocab_size, self.num_tokens) == (target.vocab_size, num_tokens) and (
            config.max_positions >= target.max_positions
        ):
            return self
        positions = max(config.max_positions, target.max_positions)
        fitted = copy.copy(self)
        fitted.config = replace(config, vocab_size=target.vocab_size, max_positions=positions)
        fitted.num_tokens = min(self.num_tokens, num_tokens, target.vocab_size)
        if positions > config.max_positions:
            fitted._rope = self._rotary_table(positions)
        return fitted

    def _rotary_table(self, positions: int) -> RotaryTable:
        config = self.config
        return RotaryTable(
            config.head_dim,
            config.rope_theta,
            config.rope_scaling,
            positions + POSITIONS_BEYOND_CONTEXT,
            self._embedding.device,
        )
