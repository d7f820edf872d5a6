"""The EAGLE3 head: one decoder layer that drafts from the target's own features, over a paged KV cache.

Li et al., "EAGLE-3: Scaling up Inference Acceleration of Large Language Models via Training-Time Test",
arXiv 2503.01840.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.product import Product
from ssd_lab.kernels.row_padding import RowPadding
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.blocks import Block, head_layout, rotary_table
from ssd_lab.models.decoder import OUTSIDE_LOGIT
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.models.eagle3.vocabulary import DraftVocabulary
from ssd_lab.models.kv_cache import PagedKVCache


@dataclass(frozen=True)
class Eagle3Weights:
    """Weights of a head. blocks: the first takes two inputs side by side, so its qkv has twice as many columns.

    feature_norms: one over all features, one for each, or none, as the config says.
    """

    embedding: torch.Tensor
    feature_norms: Sequence[RmsNorm]
    combine: Linear
    hidden_norm: RmsNorm
    blocks: Sequence[Block]
    final_norm: RmsNorm
    head: Linear


class Eagle3Head:
    """Runs forwards of an EAGLE3 head over a paged KV cache of its own. Holds weights, no state between calls.

    Row i of a sequence joins the target's feature i with the embedding of token i + 1, and predicts token i + 2. Its
    position and its place in the cache are i: after L committed tokens the cache holds rows 0 .. L - 2, as the
    target's cache holds its first L - 1 tokens, so the target's block tables serve both.
    """

    def __init__(
        self,
        config: Eagle3Config,
        weights: Eagle3Weights,
        vocabulary: DraftVocabulary,
        row_padding: RowPadding,
        kernels: Kernels[Any],
        num_tokens: int | None = None,
    ) -> None:
        """num_tokens: ids of a whole vocabulary that can be drafted; those behind them only pad the target's."""
        self.config = config
        self._num_tokens = num_tokens if num_tokens is not None and vocabulary.is_whole else None
        self.vocabulary = vocabulary
        self.row_padding = row_padding
        self.kernels = kernels
        self._weights = weights
        self._heads = head_layout(config.layers)
        self._rope = rotary_table(config.layers, weights.embedding.device)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of weights and activations."""
        return self._weights.embedding.dtype

    def linears(self) -> list[Linear]:
        """Every matrix product of a forward."""
        weights = self._weights
        return [weights.combine, weights.head, *(linear for block in weights.blocks for linear in block.linears())]

    def combine(self, features: torch.Tensor) -> torch.Tensor:
        """What the first step gets, `[..., hidden]`, of the target's features side by side `[..., feature_size]`."""
        flat = features.reshape(-1, features.shape[-1])
        norms = self._weights.feature_norms
        if len(norms) == 1:
            flat = norms[0](flat)
        elif norms:
            flat = torch.cat([norm(part) for norm, part in zip(norms, flat.chunk(len(norms), -1), strict=True)], -1)
        return self._weights.combine(flat).view(*features.shape[:-1], -1)

    def forward(
        self, step: StepInput, cache: PagedKVCache, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`hidden_states`, and logits `[batch, rows, draft vocabulary]` in place of the normed ones."""
        normed, carried = self.hidden_states(step, cache, features)
        return self.logits(normed), carried

    def hidden_states(
        self, step: StepInput, cache: PagedKVCache, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the rows and write their K/V.

        features: `[batch, rows, hidden]`, what `combine` made of the target's, or what an earlier step carried on.
        Returns, both `[batch, rows, hidden]`, the normed hidden states, of which `logits` makes logits, and what is
        carried on to the next step: the states before the final norm, unless the config says otherwise
        (`norm_output`).
        """
        weights, config, kernels = self._weights, self.config, self.kernels
        batch, rows = step.token_ids.shape
        plan = kernels.plan(step, cache.block_size, self._heads, self._rope, self.dtype)
        embedded = weights.embedding[step.token_ids.reshape(-1)]
        hidden, normed = kernels.add_rms_norm(features.reshape(batch * rows, -1), None, weights.hidden_norm)
        inputs = torch.cat([weights.blocks[0].input_norm(embedded), normed], -1)
        hidden = normed if config.norm_before_residual else hidden
        delta: Product | None = None  # what the block before adds to the residual stream
        for index, (block, layer_cache) in enumerate(zip(weights.blocks, cache.layers, strict=True)):
            if index > 0:
                hidden, inputs = kernels.add_rms_norm(hidden, delta, block.input_norm)
            hidden, delta = block(hidden, inputs, layer_cache, plan, kernels)
        hidden, normed = kernels.add_rms_norm(hidden, delta, weights.final_norm)
        carried = normed if config.norm_output else hidden
        return normed.view(batch, rows, -1), carried.view(batch, rows, -1)

    def logits(self, normed: torch.Tensor) -> torch.Tensor:
        """Logits `[batch, rows, draft vocabulary]`, float32, of normed hidden states `[batch, rows, hidden]`."""
        logits = self._weights.head.wide(normed.flatten(0, 1))
        if self._num_tokens is not None and self._num_tokens < logits.shape[1]:
            logits[:, self._num_tokens :] = OUTSIDE_LOGIT
        return logits.view(*normed.shape[:2], -1)
