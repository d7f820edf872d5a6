"""What one model takes of a device's memory: pure arithmetic on its config and on the rows of its largest step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.kv_cache import PagedKVCache

LOGIT_COPIES = (
    4  # float32 rows over the vocabulary that sampling holds at once: logits, filtered, sorted, probabilities
)
DISTRIBUTION_COPIES = 2  # of what a drafting phase hands out: its steps, and all of them joined
FLOAT32_BYTES = 4
SPLIT_TOKENS = 128  # keys of one part of the split attention (bfloat16), and the most its partial results may take:
LARGEST_PARTIALS_BYTES = 256 << 20  # beyond it a program does all parts (kernels/triton_ops/attention_plan.py)


@dataclass(frozen=True)
class ModelDemand:
    """A model on the device. rows: of its largest step. logit_rows: of these, how many get logits.

    splits: parts into which attention cuts the keys (0: it keeps no partial results). scratch_positions: KV positions
    of one sequence beyond its text, for the branches of a tree. kept_distributions: float32 rows over the vocabulary
    that outlive a phase. num_weights: of an EAGLE head, more than its layers'. measured_bytes: what a dry run of the
    largest steps held; it takes the place of the formulas.
    """

    config: ModelConfig
    dtype: torch.dtype
    rows: int
    logit_rows: int
    splits: int = 0
    scratch_positions: int = 0
    kept_distributions: int = 0
    num_weights: int | None = None
    measured_bytes: int | None = None

    @property
    def is_head(self) -> bool:
        """An EAGLE head, which is loaded when the engine is built?"""
        return self.num_weights is not None

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return (self.num_weights or self.config.num_parameters) * self.dtype.itemsize

    @property
    def table_bytes(self) -> int:
        """Cosines and sines of every position, float32."""
        return self.config.max_positions * self.config.head_dim * 2 * FLOAT32_BYTES

    @property
    def workspace_bytes(self) -> int:
        """Activations of the largest step: of one layer, and the logits with what sampling makes of them."""
        if self.measured_bytes is not None:
            return self.measured_bytes
        config = self.config
        heads = config.num_heads * config.head_dim
        keys = config.num_kv_heads * config.head_dim
        layer = 3 * config.hidden_size + 2 * heads + 2 * keys + 3 * config.mlp_size
        logits = config.vocab_size * (LOGIT_COPIES * FLOAT32_BYTES + self.dtype.itemsize)
        kept = self.kept_distributions * DISTRIBUTION_COPIES * config.vocab_size * FLOAT32_BYTES
        return self.rows * layer * self.dtype.itemsize + self.logit_rows * logits + kept

    @property
    def partial_bytes(self) -> int:
        """What attention keeps for each row, head and split: a weighted sum of values, its weight and its maximum."""
        if self.measured_bytes is not None:
            return 0  # the dry run held them too
        numbers = self.rows * self.config.num_heads * self.splits * (self.config.head_dim + 2)
        return min(numbers * FLOAT32_BYTES, LARGEST_PARTIALS_BYTES)

    def block_bytes(self, block_size: int) -> int:
        """One KV block in all layers."""
        return PagedKVCache.bytes_per_block(self.config, block_size, self.dtype)

    def scratch_bytes(self, block_size: int, rows: int) -> int:
        """KV blocks of the branches of `rows` sequences."""
        return rows * -(-self.scratch_positions // block_size) * self.block_bytes(block_size)

    def scaled(self, share: float) -> ModelDemand:
        """For a batch of that share of the size: rows of a step shrink with it, logits too."""
        logit_rows = max(1, round(self.logit_rows * share))
        measured = None if self.measured_bytes is None else round(self.measured_bytes * share)
        kept = round(self.kept_distributions * share)
        rows = max(logit_rows, round(self.rows * share), min(self.rows, LARGEST))  # pieces of prompts do not shrink
        return replace(self, rows=rows, logit_rows=logit_rows, kept_distributions=kept, measured_bytes=measured)
