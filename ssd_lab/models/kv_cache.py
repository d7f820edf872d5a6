"""Memory for keys and values, in blocks."""

from __future__ import annotations

import torch

from ssd_lab.common.out_of_memory import explain_out_of_memory
from ssd_lab.errors import CacheCapacityError
from ssd_lab.models.config import ModelConfig


class PagedKVCache:
    """One tensor `[num_blocks * block_size, 2 * kv_heads, head_dim]` a layer: K heads, then V heads."""

    def __init__(
        self, config: ModelConfig, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        shape = (num_blocks * block_size, 2 * config.num_kv_heads, config.head_dim)
        wanted = num_blocks * self.bytes_per_block(config, block_size, dtype)
        with explain_out_of_memory(
            f"allocating {num_blocks:,} KV blocks",
            CacheCapacityError,
            device=device,
            wanted_bytes=wanted,
            change="lower num_blocks, max_batch or max_model_len",
        ):
            self.layers = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]

    @property
    def bytes(self) -> int:
        """Memory of all layers."""
        return sum(layer.numel() * layer.element_size() for layer in self.layers)

    @staticmethod
    def bytes_per_block(config: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
        """Memory of one block, all layers."""
        return config.num_layers * block_size * 2 * config.num_kv_heads * config.head_dim * dtype.itemsize
