"""Makers of small models and tokenizers that several tests need: tensors in memory, and GGUF files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ssd_lab.models.config import ModelConfig

MANY_SCRIPTS = [
    "naïve café – déjà vu",
    "日本語のテキスト",
    "привет, мир",
    "emoji 🙂🙃👩‍👩‍👧",
    "x = [1, 2, 3]\n\treturn x",
] * 4
CONTROL, USER_DEFINED, NORMAL = 3, 4, 1


def trained_tokenizer() -> Tokenizer:
    """A byte-level BPE whose pieces cut characters anywhere, with an end token and a token that is text (<think>)."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        MANY_SCRIPTS, trainers.BpeTrainer(vocab_size=318, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return backend


def tiny_config(vocab_size: int, **changes: object) -> ModelConfig:
    """A Llama of two layers, tied."""
    fields: dict[str, object] = {
        "model_type": "llama", "hidden_size": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16,
        "mlp_size": 128, "vocab_size": vocab_size, "max_positions": 256, "tie_embeddings": True,
    }  # fmt: skip
    return ModelConfig(**{**fields, **changes})  # type: ignore[arg-type]


def random_tensors(config: ModelConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of this shape, named as in a Hugging Face checkpoint."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) / columns**0.5

    def norm(size: int) -> torch.Tensor:
        return 1 + 0.2 * torch.randn(size, generator=generator)

    hidden, queries, keys = (
        config.hidden_size,
        config.num_heads * config.head_dim,
        config.num_kv_heads * config.head_dim,
    )
    tensors = {"model.embed_tokens.weight": matrix(config.vocab_size, hidden), "model.norm.weight": norm(hidden)}
    if not config.tie_embeddings:
        tensors["lm_head.weight"] = matrix(config.vocab_size, hidden)
    for layer in range(config.num_layers):
        at = f"model.layers.{layer}."
        tensors |= {
            f"{at}input_layernorm.weight": norm(hidden),
            f"{at}post_attention_layernorm.weight": norm(hidden),
            f"{at}self_attn.q_proj.weight": matrix(queries, hidden),
            f"{at}self_attn.k_proj.weight": matrix(keys, hidden),
            f"{at}self_attn.v_proj.weight": matrix(keys, hidden),
            f"{at}self_attn.o_proj.weight": matrix(hidden, queries),
            f"{at}mlp.gate_proj.weight": matrix(config.mlp_size, hidden),
            f"{at}mlp.up_proj.weight": matrix(config.mlp_size, hidden),
            f"{at}mlp.down_proj.weight": matrix(hidden, config.mlp_size),
        }
        if config.qk_norm:
            tensors |= {f"{at}self_attn.{name}_norm.weight": norm(config.head_dim) for name in "qk"}
    return tensors


GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_gguf(
    path: Path,
    config: ModelConfig,
    tensors: dict[str, torch.Tensor],
    kind: str = "F32",
    divisors: list[float] | None = None,
    extra: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """A GGUF file as llama.cpp's converter writes it; returns the tensors as quantised, under their own names."""
    import gguf

    arch, quantised = config.model_type, {}
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.mlp_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_eps)
    writer.add_rope_freq_base(config.rope_theta)
    _write_gguf_tokenizer(writer)
    for name, tensor in tensors.items():
        stored = tensor
        part = next((p for p in ("q_proj", "k_proj") if p in name), None)
        if part and arch == "llama":  # the converter interleaves the two halves of each head
            heads = config.num_heads if part == "q_proj" else config.num_kv_heads
            stored = tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        tensor_type = gguf.GGMLQuantizationType[kind if tensor.ndim > 1 else "F32"]
        data = gguf.quants.quantize(stored.numpy(), tensor_type)
        back = torch.from_numpy(np.array(gguf.quants.dequantize(data, tensor_type)))
        if part and arch == "llama":
            back = back.view(heads, -1, 2, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        quantised[name] = back
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, data, raw_dtype=tensor_type)
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(divisors, dtype=np.float32))
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return quantised


def _write_gguf_tokenizer(writer: object) -> None:
    import json

    backend = trained_tokenizer()
    vocabulary = {index: piece for piece, index in backend.get_vocab(with_added_tokens=True).items()}
    pieces = [vocabulary[index] for index in range(len(vocabulary))]
    types = [CONTROL if piece == "<|end|>" else USER_DEFINED if piece == "<think>" else NORMAL for piece in pieces]
    merges = [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")  # type: ignore[attr-defined]
    writer.add_tokenizer_pre("default")  # type: ignore[attr-defined]
    writer.add_token_list(pieces)  # type: ignore[attr-defined]
    writer.add_token_types(types)  # type: ignore[attr-defined]
    writer.add_token_merges(merges)  # type: ignore[attr-defined]
    writer.add_eos_token_id(pieces.index("<|end|>"))  # type: ignore[attr-defined]
