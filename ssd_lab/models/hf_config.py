"""Shape of a decoder as a Hugging Face config."""

from __future__ import annotations

from typing import Any

from ssd_lab.models.config import ModelConfig


def hf_config(config: ModelConfig, *, dtype: str) -> dict[str, Any]:
    """config.json as transformers writes it for a Llama; `ModelConfig.from_hf` reads it."""
    rope = {"rope_type": "default"} if config.rope_scaling is None else dict(config.rope_scaling)
    ends = config.eos_token_ids
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": config.model_type,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling is None else rope,
        "rope_parameters": {**rope, "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends) or None,
        "torch_dtype": dtype,
    }
