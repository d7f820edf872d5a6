"""Attention by FlashInfer (arXiv 2501.01005), behind the same plan-and-attend interface as the Triton kernel.

Each row is a request of its own in FlashInfer's paged decoding, with pages of one key: its pages are the slots of its
prefix and then of its ancestors. So rows of a tree need no mask and are computed as the chain they stand for, and with
splits of a fixed size a row's result does not depend on the others. The price: rows of one sequence share no reads but
through the GPU's cache, and the plan reads the lengths on the host, so it cannot be captured in a CUDA graph.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.errors import ConfigError
from ssd_lab.kernels.interface import Attention, HeadLayout
from ssd_lab.kernels.step_input import StepInput

WORKSPACE_BYTES = 128 << 20  # as FlashInfer recommends
SPLIT = 512  # keys of one split; each leaves a tile of TILE_ROWS float32 rows a head, whatever it was asked for
TILE_ROWS = (16, 64, 128)  # of FlashInfer's products: the first that holds a K/V head's queries


def workspace_bytes(num_rows: int, context_length: int, heads: HeadLayout) -> int:
    """What the splits of so many rows may leave: values and sums of each split, in float32."""
    tile = next((rows for rows in TILE_ROWS if rows >= heads.group), TILE_ROWS[-1])
    tiles = num_rows * -(-heads.group // tile) * -(-context_length // SPLIT)
    return max(WORKSPACE_BYTES, tiles * tile * heads.num_heads * (heads.head_dim + 1) * 4)


def row_slots(step: StepInput, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots of the keys that each row sees, row after row `[total]`, and how many each row sees `[batch * rows]`."""
    batch, rows = step.prefix_lengths.shape
    prefixes = step.prefix_lengths.unsqueeze(-1)
    places = torch.arange(step.context_length, device=prefixes.device).expand(batch, rows, -1)
    places = torch.where(places < prefixes, places, -1)
    if step.ancestors is not None:
        places = torch.cat([places, step.ancestors], -1)
    seen = places >= 0
    blocks = step.block_tables.gather(1, places.clamp(min=0).flatten(1).div(block_size, rounding_mode="floor"))
    slots = blocks.view(batch, rows, -1) * block_size + places % block_size
    return slots[seen], seen.sum(-1).flatten()


@dataclass(frozen=True)
class FlashInferPlan:
    """wrapper: planned for this forward. is_empty `[n, 1]`: rows that see nothing; they read the dump."""

    wrapper: Any
    is_empty: torch.Tensor


class FlashInferAttention(Attention):
    """Plans and runs one forward after another on one device.

    Raises ConfigError if FlashInfer is not installed or cannot be loaded. cuda_arch: architecture to build its kernels
    for (9.0, say) where the one of the device is not wanted; it has to be known before FlashInfer is first imported.
    """

    name = "flashinfer"
    captures = False

    def __init__(self, device: torch.device, cuda_arch: str | None = None) -> None:
        if cuda_arch is not None:
            os.environ["FLASHINFER_CUDA_ARCH_LIST"] = cuda_arch  # the one way to tell it
        try:
            import flashinfer
        except ImportError as error:
            raise ConfigError(
                f"kernels 'flashinfer' need the package flashinfer ({error}): pip install -e '.[flashinfer]', or "
                "choose kernels 'triton'"
            ) from error
        self._wrapper_class = flashinfer.BatchDecodeWithPagedKVCacheWrapper
        self._workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=device)

    def _workspace_for(self, num_bytes: int) -> torch.Tensor:
        """One for all plans, grown when one needs more: FlashInfer refuses to plan beyond what it is given."""
        if self._workspace.numel() < num_bytes:
            self._workspace = torch.zeros(num_bytes, dtype=torch.uint8, device=self._workspace.device)
        return self._workspace

    def plan(self, step: StepInput, block_size: int, heads: HeadLayout, dtype: torch.dtype) -> FlashInferPlan:
        """Tell FlashInfer which slots each row sees; reads the lengths on the host."""
        if step.prefix_lengths.is_cuda and torch.cuda.is_current_stream_capturing():
            raise ConfigError("kernels 'flashinfer' cannot be captured in a CUDA graph: set eager, or take 'triton'")
        slots, lengths = row_slots(step, block_size)
        is_empty = lengths == 0
        if bool(is_empty.any()):
            filled = torch.where(is_empty, 1, lengths)
            padded = slots.new_zeros(int(filled.sum()))
            padded[~is_empty.repeat_interleave(filled)] = slots
            slots, lengths = padded, filled
        starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
        seen = step.context_length + (0 if step.ancestors is None else step.ancestors.shape[-1])
        workspace = self._workspace_for(workspace_bytes(len(lengths), seen, heads))
        # the backend that cuts where it is told, as `auto` takes it for these dtypes
        wrapper = self._wrapper_class(workspace, "NHD", use_tensor_cores=True, backend="fa2")
        wrapper.plan(
            starts,
            slots.int(),
            torch.ones_like(lengths, dtype=torch.int32),
            heads.num_heads,
            heads.num_kv_heads,
            heads.head_dim,
            1,
            q_data_type=dtype,
            kv_data_type=dtype,
            fixed_split_size=SPLIT,
        )
        return FlashInferPlan(wrapper, is_empty.unsqueeze(-1))

    def attend(self, queries: torch.Tensor, layer_cache: torch.Tensor, plan: FlashInferPlan) -> torch.Tensor:
        """Attention of `[n, heads, head_dim]`: see `Kernels.attention`. A row that sees nothing gives zeros."""
        kv_heads = layer_cache.shape[1] // 2
        pages = layer_cache.unsqueeze(1)  # [slots, 1, 2 * kv_heads, head_dim]
        key_values = (pages[:, :, :kv_heads], pages[:, :, kv_heads:])
        # launched in the plain way: ours wait for the kernel ahead of them, and rely on its having waited for the rest
        attended = plan.wrapper.run(queries.contiguous(), key_values, enable_pdl=False)
        return attended.flatten(1).masked_fill(plan.is_empty, 0)
