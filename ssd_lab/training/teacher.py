"""The teacher: a Llama-architecture instruct model, read from a GGUF file, that answers the prompts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssd_lab.training.config import ModelConfig
from ssd_lab.training.generate import Request
from ssd_lab.training.model import Llama
from ssd_lab.training.prompts import Prompt

SYSTEM_PROMPT = "You are a helpful AI assistant. Answer briefly and clearly."

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(gguf_name: str) -> str:
    """Transformers' name of a GGUF tensor."""
    if gguf_name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if gguf_name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, kind = gguf_name.split(".")
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}.{kind}"


def unpermute(weight: Tensor, num_heads: int) -> Tensor:
    """Undo GGUF's interleaved rotary layout of a query or key matrix [heads * head_dim, hidden]."""
    rows, columns = weight.shape
    return weight.view(num_heads, rows // num_heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def load_teacher(path: Path, *, device: torch.device | str, dtype: torch.dtype) -> Llama:
    """Read a Llama GGUF file with tied embeddings, dequantised to `dtype`."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)

    def number(key: str) -> float:
        return reader.fields[f"llama.{key}"].contents()

    hidden, heads = int(number("embedding_length")), int(number("attention.head_count"))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = ModelConfig(
        hidden_size=hidden,
        num_layers=int(number("block_count")),
        num_heads=heads,
        num_kv_heads=int(number("attention.head_count_kv")),
        intermediate_size=int(number("feed_forward_length")),
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        head_dim=hidden // heads,
        rope_theta=float(number("rope.freq_base")),
        norm_epsilon=float(number("attention.layer_norm_rms_epsilon")),
        max_positions=1024,
    )
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if ".attn_q." in name:
            weight = unpermute(weight, config.num_heads)
        elif ".attn_k." in name:
            weight = unpermute(weight, config.num_kv_heads)
        weights[hf_name(name)] = weight.to(dtype)
    model = Llama(config).to(dtype)
    model.load_state_dict(weights)
    model = model.to(device)
    model.reset_rope(device)
    return model


def chat_text(prompt: str) -> str:
    """The prompt in the teacher's chat format, up to where its answer begins."""
    return (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    )


def requests(
    prompts: Sequence[Prompt],
    tokens: Sequence[list[int]],
    *,
    samples: int,
    file_samples: int,
    temperatures: Sequence[float],
    seed: int,
) -> Iterator[Request]:
    """Every prompt once per pass, in a new order each pass, so that a run may stop at any time."""
    order = list(range(len(prompts)))
    rng = random.Random(seed)
    for sample in range(max(samples, file_samples)):
        rng.shuffle(order)
        for index in order:
            # Prompts from files are few and real: they are asked more often than the generated ones.
            limit = samples if prompts[index].own else file_samples
            if sample < limit:
                yield Request(index, tokens[index], temperatures[sample % len(temperatures)])
