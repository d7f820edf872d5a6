"""Random models made for testing: small vocabulary, a draft that clearly differs from its target, an EAGLE3 head.

Tokens of a real pair are mostly accepted, so that residuals, misses and fallbacks are rare there, and an error in one
of them drowns; here many are not. The target has two layers, or K/V computed under a wrong context would still be
right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssd_lab.assembly.build import resolve_device
from ssd_lab.check.subjects import Models
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.loader import from_tensors

VOCAB, HIDDEN, HEADS, HEAD_DIM, MLP, CONTEXT = 32, 32, 2, 16, 48, 256
HEAD_VOCAB = 24  # the EAGLE3 head cannot name the others
SHARPNESS = 2.5  # standard deviation of the logits by context, were all of the hidden state context
COMMON = 3.0  # one coordinate of every embedding: what all contexts share, so that some tokens are likely everywhere
LIKINGS = 2.0  # how far the logits differ by that coordinate
SECOND_LAYER = 0.4  # how much the target's second layer adds, in units of the first
NOISE = 0.25  # of the draft's weights, in units of the target's


def random_models(name: str, folder: Path, engine: dict[str, Any], *, seed: int = 0) -> Models:
    """The same ones for the same seed, for runs with these engine fields; the head is written into `folder`."""
    device = str(resolve_device(engine.get("device", "auto")))
    shared, noise = _decoder(2, seed), _decoder(1, seed + 1)
    drafts = {key: shared[key] + NOISE * tensor * (tensor.ndim > 1) for key, tensor in noise.items()}
    target = from_tensors(_config(2), shared, dtype="float32", device=device, pack=False)
    draft = from_tensors(_config(1), drafts, dtype="float32", device=device, pack=False)
    _write_head(folder, shared["lm_head.weight"], seed + 2)
    return Models(name, target, draft, str(folder), engine={**engine, "dtype": "float32"})


def random_prompts(count: int, *, seed: int = 0) -> list[list[int]]:
    """Token ids, no two prompts alike in all likelihood."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCAB, (4 + i % 5,), generator=generator).tolist() for i in range(count)]


def _config(num_layers: int) -> ModelConfig:
    return ModelConfig(
        model_type="llama", hidden_size=HIDDEN, num_layers=num_layers, num_heads=HEADS, num_kv_heads=1,
        head_dim=HEAD_DIM, mlp_size=MLP, vocab_size=VOCAB, max_positions=CONTEXT,
    )  # fmt: skip


def _decoder(num_layers: int, seed: int) -> dict[str, torch.Tensor]:
    matrix = _matrices(torch.Generator().manual_seed(seed))
    tensors = {
        "model.embed_tokens.weight": matrix(VOCAB, HIDDEN, HIDDEN**0.5),
        "model.norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": matrix(VOCAB, HIDDEN, SHARPNESS),
    }
    tensors["model.embed_tokens.weight"][:, 0] = COMMON
    tensors["lm_head.weight"][:, 0] = LIKINGS * matrix(VOCAB, 1).squeeze(1)
    for layer in range(num_layers):
        tensors |= _layer(f"model.layers.{layer}.", HIDDEN, matrix)
        if layer:  # what the draft's single layer cannot know
            for name in ("self_attn.o_proj", "mlp.down_proj"):
                tensors[f"model.layers.{layer}.{name}.weight"] *= SECOND_LAYER
    return tensors


def _matrices(generator: torch.Generator) -> Callable[..., torch.Tensor]:
    """Makes matrices that keep the size of what is multiplied with them, times a gain."""

    def matrix(rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * gain / columns**0.5

    return matrix


def _layer(at: str, inputs: int, matrix: Callable[..., torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        f"{at}input_layernorm.weight": torch.ones(HIDDEN),
        f"{at}post_attention_layernorm.weight": torch.ones(HIDDEN),
        f"{at}self_attn.q_proj.weight": matrix(HEADS * HEAD_DIM, inputs, 2.0),
        f"{at}self_attn.k_proj.weight": matrix(HEAD_DIM, inputs, 2.0),
        f"{at}self_attn.v_proj.weight": matrix(HEAD_DIM, inputs),
        f"{at}self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD_DIM),
        f"{at}mlp.gate_proj.weight": matrix(MLP, HIDDEN),
        f"{at}mlp.up_proj.weight": matrix(MLP, HIDDEN),
        f"{at}mlp.down_proj.weight": matrix(HIDDEN, MLP),
    }


def _write_head(folder: Path, output: torch.Tensor, seed: int) -> None:
    """In the layout of SafeAILab, with a vocabulary of its own. output: the target's; the head's is like it."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    matrix = _matrices(generator)
    ids = torch.randperm(VOCAB, generator=generator)[:HEAD_VOCAB].sort().values
    tensors = {
        **_layer("midlayer.", 2 * HIDDEN, matrix),
        "midlayer.hidden_norm.weight": torch.ones(HIDDEN),
        "fc.weight": torch.eye(HIDDEN).repeat(1, 3) / 3 + NOISE * matrix(HIDDEN, 3 * HIDDEN),
        "norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": output[ids] + NOISE * matrix(HEAD_VOCAB, HIDDEN, SHARPNESS),
        "d2t": ids - torch.arange(HEAD_VOCAB),
        "t2d": torch.zeros(VOCAB, dtype=torch.bool).index_fill_(0, ids, True),
    }
    config = {
        "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": MLP, "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": 1,
        "head_dim": HEAD_DIM, "vocab_size": VOCAB, "draft_vocab_size": HEAD_VOCAB, "rms_norm_eps": 1e-5,
        "max_position_embeddings": CONTEXT, "eagle_aux_hidden_state_layer_ids": [0, 1, 2],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
