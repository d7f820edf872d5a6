"""Small EAGLE3 checkpoints in each published layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCAB, DRAFT_VOCAB = 64, 4, 2, 16, 96, 120, 40


def head_tensors(
    *,
    seed: int = 0,
    qk_norm: bool = False,
    bias: bool = False,
    fc_norm: bool = False,
    input_norm: bool = False,
    whole_vocabulary: bool = False,
    num_layers: int = 1,
) -> dict[str, torch.Tensor]:
    """Random weights, layers named `layer.N.`; norms away from 1, or a forgotten one would not show."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) / columns**0.5

    def norm(size: int) -> torch.Tensor:
        return 1 + 0.3 * torch.randn(size, generator=generator)

    draft_vocab = VOCAB if whole_vocabulary else DRAFT_VOCAB
    tensors = {"fc.weight": matrix(HIDDEN, 3 * HIDDEN), "norm.weight": norm(HIDDEN)}
    tensors["lm_head.weight"] = 3 * matrix(draft_vocab, HIDDEN)
    for layer in range(num_layers):
        at, inputs = f"layer.{layer}.", 2 * HIDDEN if layer == 0 else HIDDEN
        sizes = {"q": HEADS * HEAD_DIM, "k": KV_HEADS * HEAD_DIM, "v": KV_HEADS * HEAD_DIM}
        for name, size in sizes.items():
            tensors[f"{at}self_attn.{name}_proj.weight"] = 2 * matrix(size, inputs)
            if bias:
                tensors[f"{at}self_attn.{name}_proj.bias"] = torch.randn(size, generator=generator)
        tensors[f"{at}self_attn.o_proj.weight"] = matrix(HIDDEN, HEADS * HEAD_DIM)
        tensors[f"{at}input_layernorm.weight"] = norm(HIDDEN)
        tensors[f"{at}post_attention_layernorm.weight"] = norm(HIDDEN)
        tensors[f"{at}mlp.gate_proj.weight"] = matrix(MLP, HIDDEN)
        tensors[f"{at}mlp.up_proj.weight"] = matrix(MLP, HIDDEN)
        tensors[f"{at}mlp.down_proj.weight"] = matrix(HIDDEN, MLP)
        if layer == 0:
            tensors[f"{at}hidden_norm.weight"] = norm(HIDDEN)
        if qk_norm:
            tensors |= {f"{at}self_attn.{name}_norm.weight": norm(HEAD_DIM) for name in "qk"}
    if fc_norm:
        tensors |= {f"fc_norm.{i}.weight": norm(HIDDEN) for i in range(3)}
    if input_norm:
        tensors["input_norm.weight"] = norm(3 * HIDDEN)
    if not whole_vocabulary:
        ids = torch.randperm(VOCAB, generator=generator)[:DRAFT_VOCAB].sort().values
        tensors["d2t"] = ids - torch.arange(DRAFT_VOCAB)
        tensors["t2d"] = torch.zeros(VOCAB, dtype=torch.bool).index_fill_(0, ids, True)
    return tensors


def shape(**changes: Any) -> dict[str, Any]:
    """A Llama's config entries; the rotation and the context are wrong, as they are in some published heads."""
    return {
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": 1,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCAB,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 123.0, **changes,
    }  # fmt: skip


def write_safeailab(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """SafeAILab and SpecForge: one `midlayer`, everything at the top level of the config."""
    folder.mkdir(parents=True, exist_ok=True)
    draft_vocab = tensors["lm_head.weight"].shape[0] if "lm_head.weight" in tensors else VOCAB
    values = shape(architectures=["LlamaForCausalLMEagle3"], draft_vocab_size=draft_vocab, **config)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file(_named(tensors, "midlayer."), folder / "model.safetensors")
    return folder


def write_speculators(
    folder: Path, tensors: dict[str, torch.Tensor], layer: dict[str, Any] | None = None, **config: Any
) -> Path:
    """The speculators library: `layers.N.`, and the layers' shape in a config of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "architectures": ["Eagle3Speculator"], "speculators_model_type": "eagle3",
        "draft_vocab_size": tensors["lm_head.weight"].shape[0], "norm_before_residual": False,
        "target_hidden_size": None, "transformer_layer_config": shape(**(layer or {})),
        "speculators_config": {"algorithm": "eagle3", "verifier": {"name_or_path": "some/target"}}, **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file(_named(tensors, "layers.{}."), folder / "model.safetensors")
    return folder


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    named = {}
    for name, tensor in tensors.items():
        if name.startswith("layer."):
            _, number, rest = name.split(".", 2)
            name = prefix.format(number) + rest
        named[name] = tensor.contiguous()
    return named
