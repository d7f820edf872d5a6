"""The step runner: one model, its paged KV cache, one device, one dtype. All that the phases call."""

from __future__ import annotations

import torch

from ssd_lab.engine.rows import causal_step, table_tensor
from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.kv_cache import PagedKVCache


class StepRunner:
    """Runs forwards of one model over its own KV cache, eagerly.

    The phases in `engine/phases/` are written against this class alone: another execution backend (CUDA graphs) is
    another
    class with the same four members.
    """

    def __init__(self, decoder: Decoder, cache: PagedKVCache, device: torch.device) -> None:
        self.decoder = decoder
        self.cache = cache
        self.device = device

    @property
    def block_size(self) -> int:
        """Tokens in one KV block."""
        return self.cache.block_size

    def logits(self, step: StepInput) -> torch.Tensor:
        """One forward; logits `[batch, rows, vocab]`, float32."""
        hidden = self.decoder.forward(step, self.cache)
        batch, rows = step.token_ids.shape
        return self.decoder.logits(hidden.view(batch * rows, -1)).view(batch, rows, -1)

    def last_logits(self, step: StepInput) -> torch.Tensor:
        """One forward; logits `[batch, 1, vocab]` of each sequence's last row only."""
        hidden = self.decoder.forward(step, self.cache)
        return self.decoder.logits(hidden[:, -1]).unsqueeze(1)

    def wipe(self, blocks: list[int]) -> None:
        """Zero the K/V of these blocks: even what no row sees must be a number, since 0 times NaN is NaN."""
        index = torch.tensor(blocks, dtype=torch.int64, device=self.device)
        for layer in self.cache.layers:
            layer.view(self.cache.num_blocks, -1).index_fill_(0, index, 0.0)

    def prefill(self, token_ids: list[int], start: int, block_table: list[int]) -> None:
        """Compute and keep K/V of `token_ids`, which stand at `start` and after it."""
        tables = table_tensor([block_table], self.device)
        for first in range(0, len(token_ids), LARGEST):  # so that K/V has the bits that a decoding step would give it
            tokens = torch.tensor([token_ids[first : first + LARGEST]], device=self.device)
            self.decoder.forward(causal_step(tokens, [start + first], tables, self.block_size), self.cache)
