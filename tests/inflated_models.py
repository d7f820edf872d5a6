"""Small models and wide shapes for the tests of inflation, and the logits that both must share."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from ssd_lab.models.assemble import assemble
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.checkpoint import Checkpoint
from ssd_lab.models.files.weights import MappingWeights, Weights
from ssd_lab.models.inflate.plan import InflationPlan
from ssd_lab.models.inflate.weights import InflatedWeights
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner

TOLERANCE = 1e-5  # relative to the largest logit: float32 sums of other lengths, nothing else
CPU = torch.device("cpu")


def random_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    """Random weights for a config, norms included, so that the logits have a spread of a few units."""
    generator = torch.Generator().manual_seed(seed)
    hidden, mlp, size = config.hidden_size, config.mlp_size, config.head_dim

    def matrix(rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * gain / math.sqrt(columns)

    def norm() -> torch.Tensor:
        return 1 + 0.3 * torch.randn(hidden, generator=generator)

    tensors = {"model.embed_tokens.weight": matrix(config.vocab_size, hidden, 0.2), "model.norm.weight": norm()}
    if not config.tie_embeddings:
        tensors["lm_head.weight"] = matrix(config.vocab_size, hidden, 2.5)
    for layer in range(config.num_layers):
        at = f"model.layers.{layer}."
        tensors |= {
            at + "input_layernorm.weight": norm(),
            at + "post_attention_layernorm.weight": norm(),
            at + "self_attn.q_proj.weight": matrix(config.num_heads * size, hidden, 2.0),
            at + "self_attn.k_proj.weight": matrix(config.num_kv_heads * size, hidden, 2.0),
            at + "self_attn.v_proj.weight": matrix(config.num_kv_heads * size, hidden),
            at + "self_attn.o_proj.weight": matrix(hidden, config.num_heads * size),
            at + "mlp.gate_proj.weight": matrix(mlp, hidden),
            at + "mlp.up_proj.weight": matrix(mlp, hidden),
            at + "mlp.down_proj.weight": matrix(hidden, mlp),
        }
    return Checkpoint(config, MappingWeights(tensors), None)


def widened(small: ModelConfig, **changes: Any) -> ModelConfig:
    """The small model's shape with some parts larger."""
    return dataclasses.replace(small, **changes)


def made(config: ModelConfig, weights: Weights, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """A model of these weights, without the probe for row padding."""
    decoder = assemble(config, weights, dtype=dtype, device=CPU, source="a test", bitwise=False)
    return LoadedModel(config, decoder, None, None, dtype)


def inflated(small: Checkpoint, plan: InflationPlan, dtype: torch.dtype = torch.float32, seed: int = 0) -> LoadedModel:
    """The wide model that a plan makes of a small one."""
    return made(plan.config, InflatedWeights(plan, small.weights, dtype=dtype, device=CPU, seed=seed), dtype)


@torch.inference_mode()
def logits_of(model: LoadedModel, ids: list[int]) -> torch.Tensor:
    """Logits `[len(ids), vocab]` of a text, up to 256 tokens."""
    runner = StepRunner(model.decoder, PagedKVCache(model.config, 17, 16, model.dtype, "cpu"), CPU)
    return runner.logits(causal_step_at(torch.tensor([ids]), [0], [list(range(1, 17))], 16))[0]


def difference(small: torch.Tensor, wide: torch.Tensor) -> float:
    """Largest difference of logits over the small vocabulary, relative to the largest logit."""
    return float((wide[:, : small.shape[1]] - small).abs().max() / small.abs().max())
