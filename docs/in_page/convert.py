"""The bundled models as files that the page loads: the same numbers, in the order in which `kernel.py` reads them.

A file is a line of JSON (what the model is, and where its tensors lie), filled up with spaces so that the tensors begin
at a multiple of 16 bytes, then the tensors. Matrices `[outputs, inputs]` stay bfloat16, as in the checkpoint; of each
eight inputs the order is 0 4 1 5 2 6 3 7. Norms and rotations are float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernel
import torch
from safetensors.torch import load_file

from ssd_lab.kernels.rope import inverse_frequencies

ALIGNED = 16
BEYOND_CONTEXT = 64  # positions that draft tokens may stand at behind the last of the context
_CONFIG = {
    "hidden": "hidden_size",
    "mlp": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kvHeads": "num_key_value_heads",
    "headDim": "head_dim",
    "vocab": "vocab_size",
    "context": "max_position_embeddings",
    "eps": "rms_norm_eps",
    "end": "eos_token_id",
}


def converted(folder: Path) -> bytes:
    """The file of a Llama checkpoint in bfloat16 whose output head is its embedding."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["head_dim"] != kernel.HEAD_DIM:
        raise ValueError(f"heads of {config['head_dim']} numbers: kernel.py reads {kernel.HEAD_DIM}")
    tensors = load_file(folder / "model.safetensors")
    place, places, parts = 0, {}, []
    for name, tensor in _tensors(config, tensors):
        content = tensor.contiguous().view(torch.uint8).numpy().tobytes()
        places[name] = place
        parts.append(content + bytes(-len(content) % ALIGNED))
        place += len(parts[-1])
    numbers = sum(tensor.numel() for tensor in tensors.values())
    head = {"config": {ours: config[theirs] for ours, theirs in _CONFIG.items()}, "parameters": numbers}
    line = json.dumps({**head, "beyond": BEYOND_CONTEXT, "bytes": place, "places": places})
    line += " " * (-(len(line) + 1) % ALIGNED) + "\n"
    return line.encode("ascii") + b"".join(parts)


def tokenizer(folder: Path) -> str:
    """What the page needs of tokenizer.json: pieces by id, merges in their order, special tokens."""
    source = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = source["model"]["vocab"]
    special = {token["content"]: token["id"] for token in source["added_tokens"] if token["special"]}
    pieces = sorted({**vocabulary, **special}, key={**vocabulary, **special}.__getitem__)
    document = {"pieces": pieces, "merges": source["model"]["merges"], "special": special}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _tensors(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    yield "embedding", _in_order(tensors["model.embed_tokens.weight"])
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
        yield f"{layer}.norm1", tensors[f"{prefix}input_layernorm.weight"].float()
        yield f"{layer}.qkv", _in_order(torch.cat([tensors[f"{attention}{each}_proj.weight"] for each in "qkv"]))
        yield f"{layer}.out", _in_order(tensors[f"{attention}o_proj.weight"])
        yield f"{layer}.norm2", tensors[f"{prefix}post_attention_layernorm.weight"].float()
        yield f"{layer}.gateUp", _in_order(torch.cat([tensors[f"{mlp}{each}_proj.weight"] for each in ("gate", "up")]))
        yield f"{layer}.down", _in_order(tensors[f"{mlp}down_proj.weight"])
    yield "norm", tensors["model.norm.weight"].float()
    frequencies = inverse_frequencies(config["head_dim"], config["rope_theta"], config["rope_parameters"])
    angles = torch.arange(config["max_position_embeddings"] + BEYOND_CONTEXT).float()[:, None] * frequencies
    yield "cos", angles.cos()
    yield "sin", angles.sin()


def _in_order(matrix: torch.Tensor) -> torch.Tensor:
    if matrix.dtype != torch.bfloat16 or matrix.shape[1] % 8:
        raise ValueError(f"a matrix of {matrix.dtype} with {matrix.shape[1]} inputs: bfloat16, of a multiple of 8")
    return matrix.unflatten(1, (-1, 2, 4)).transpose(2, 3).flatten(1)
