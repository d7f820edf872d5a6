"""Llama 3.x and what was trained in its shape, such as SmolLM2."""

from __future__ import annotations

from ssd_lab.models.block_decoder import decoder_of_blocks
from ssd_lab.models.families.family import Family
from ssd_lab.models.share import BLOCK_CUTS

LLAMA = Family(
    name="Llama",
    model_type="llama",
    architecture="LlamaForCausalLM",
    make_decoder=decoder_of_blocks,
    gguf_architecture="llama",
    gguf_interleaves=True,
    cuts=BLOCK_CUTS,
)
