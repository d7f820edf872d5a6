"""Qwen3, the dense ones: blocks as Llama's, with norms of query and key heads."""

from __future__ import annotations

from ssd_lab.models.block_decoder import decoder_of_blocks
from ssd_lab.models.families.family import Family
from ssd_lab.models.share import BLOCK_CUTS

QWEN3 = Family(
    name="Qwen3",
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    make_decoder=decoder_of_blocks,
    head_dim=128,
    qk_norm=True,
    asks_for_windows=True,
    gguf_architecture="qwen3",
    cuts=BLOCK_CUTS,
)
