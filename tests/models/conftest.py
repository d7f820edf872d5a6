"""Small random checkpoints of each family, made with transformers, and a reader of their logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}


def _save(name: str, folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(3)
    if name.startswith("qwen3"):
        config = Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True)
        model = Qwen3ForCausalLM(config)
    else:
        scaling = {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
        extra = {"rope_scaling": scaling, "rope_theta": 5e5} if name == "llama3" else {}
        model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=name == "smollm2", **extra))
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.2)  # norms of ones would hide a forgotten weight
    shards = {"max_shard_size": "120KB"} if name == "llama3" else {}
    model.save_pretrained(folder, **shards)


@pytest.fixture(scope="session", params=["llama3", "smollm2", "qwen3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: llama3 (scaled rotations, untied, sharded), smollm2 (tied), qwen3 (normed heads, wide heads, tied)."""
    folder = tmp_path_factory.mktemp("checkpoints") / request.param
    _save(request.param, folder)
    return folder
