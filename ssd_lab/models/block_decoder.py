"""A decoder made of blocks: Llama 3.x, SmolLM2, Qwen3, and whatever differs from them in its blocks only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from ssd_lab.errors import ModelLoadError
from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.product import Product
from ssd_lab.kernels.row_padding import RowPadding
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.blocks import Block, Parts, head_layout, read_block, rotary_table
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import OUTSIDE_LOGIT, Decoder
from ssd_lab.models.group import Group
from ssd_lab.models.kv_cache import PagedKVCache


class BlockDecoder(Decoder):
    """Embedding, blocks, a final norm and an output head; what its methods do, `Decoder` says."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: torch.Tensor,
        blocks: Sequence[Block],
        final_norm: RmsNorm,
        head: Linear,
        kernels: Kernels[Any],
        num_tokens: int | None = None,
        group: Group | None = None,
    ) -> None:
        self.config = config
        self.group = group
        width = head.out_features * (1 if group is None else group.size)
        self.num_tokens = min(config.vocab_size, width, num_tokens or config.vocab_size)
        self.row_padding = RowPadding()
        self.kernels = kernels
        self.embedding = embedding
        self._blocks = list(blocks)
        self._final_norm = final_norm
        self.output_head = head
        self._heads = head_layout(config)
        self._rope = rotary_table(config, embedding.device)

    def linears(self) -> list[Linear]:
        """Every matrix product of a forward."""
        return [self.output_head, *(linear for block in self._blocks for linear in block.linears())]

    def forward(
        self, step: StepInput, cache: PagedKVCache, *, features: dict[int, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The rows through all blocks."""
        batch, rows = step.token_ids.shape
        kernels = self.kernels
        plan = self.plan(step, cache)
        token_ids = step.token_ids.reshape(-1)
        if self.embedding.shape[0] < self.config.vocab_size:  # ids that the target pads with, in a prompt
            token_ids = token_ids.clamp(max=self.embedding.shape[0] - 1)
        hidden = self.embedding[token_ids]  # for few rows F.embedding goes from one to the next
        delta: Product | None = None  # what the block before adds to the residual stream
        for index, (block, layer_cache) in enumerate(zip(self._blocks, cache.layers, strict=True)):
            hidden, normed = kernels.add_rms_norm(hidden, delta, block.input_norm)
            if features is not None and index in features:
                features[index] = hidden.view(batch, rows, -1).clone()
            hidden, delta = block(hidden, normed, layer_cache, plan, kernels)
        hidden, normed = kernels.add_rms_norm(hidden, delta, self._final_norm)
        if features is not None and len(self._blocks) in features:
            features[len(self._blocks)] = hidden.view(batch, rows, -1).clone()
        return normed.view(batch, rows, -1)

    def plan(self, step: StepInput, cache: PagedKVCache) -> Any:
        """What the kernels of all blocks share in a forward over this step."""
        return self.kernels.plan(step, cache.block_size, self._heads, self._rope, self.embedding.dtype)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `[n, vocab]`, float32, of normed hidden states `[n, hidden]`."""
        logits, vocab = self.output_head.wide(hidden), self.config.vocab_size
        if self.group is not None:
            logits = self.group.joined(logits)
        if logits.shape[1] != vocab:
            return F.pad(logits[:, : self.num_tokens], (0, vocab - self.num_tokens), value=OUTSIDE_LOGIT)
        if self.num_tokens < vocab:
            logits[:, self.num_tokens :] = OUTSIDE_LOGIT
        return logits

    def fitted_to(self, target: ModelConfig, num_tokens: int) -> BlockDecoder:
        """The same weights with the target's vocabulary and positions."""
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
            fitted._rope = rotary_table(fitted.config, self.device)
        return fitted

    def first_layers(self, count: int) -> BlockDecoder:
        """The same weights, of the first blocks only."""
        first = copy.copy(self)
        first._blocks = self._blocks[:count]
        first.config = replace(self.config, num_layers=len(first._blocks))
        return first


def decoder_of_blocks(parts: Parts, make_block: Callable[[Parts, str], Block] = read_block) -> BlockDecoder:
    """The decoder whose tensors are named as in Llama's checkpoints. make_block: one block, of those whose names begin
    with a prefix.
    """
    config, tensors = parts.config, parts.tensors
    embedding = tensors.take("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
    blocks = []
    for index in range(config.num_layers):
        blocks.append(make_block(parts, f"model.layers.{index}."))
        parts.on_layer()
    ours = embedding if parts.group is None else parts.group.rows_of(embedding)  # of a head that is the embedding
    head = _tied(parts, ours) if config.tie_embeddings else tensors.take("lm_head.weight", *ours.shape)
    final_norm = parts.norm("model.norm", config.hidden_size)
    made = (config, embedding, blocks, final_norm, parts.linear(head), parts.kernels, parts.num_tokens)
    return BlockDecoder(*made, group=parts.group)


def _tied(parts: Parts, embedding: torch.Tensor) -> torch.Tensor:
    """The embedding, which is the output head too. Raises ModelLoadError where the checkpoint has another head."""
    tensors = parts.tensors
    if "lm_head.weight" in tensors and not torch.equal(tensors.take("lm_head.weight", *embedding.shape), embedding):
        raise ModelLoadError(
            f"{tensors.source}: the config says that the output head is the embedding (tie_word_embeddings), and "
            "lm_head.weight is another: set tie_word_embeddings to false in its config.json to use that, or delete the "
            "tensor"
        )
    return embedding
