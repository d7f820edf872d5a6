"""Sizes, seeds and budgets of the bundled family: plain dataclasses, so that a bare GPU machine can import them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """Geometry of one Llama-architecture model; the last four fields are for targets that were made elsewhere."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    vocab_size: int = 4096
    head_dim: int = 64
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5
    max_positions: int = 1024
    rope_scaling: Mapping[str, Any] | None = None
    tie_embeddings: bool = True
    qk_norm: bool = False
    attention_bias: bool = False

    @property
    def num_body_parameters(self) -> int:
        """Parameters outside the embedding table."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads)
        per_layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        return self.num_layers * per_layer + self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters; an embedding table that is the output layer too counts once."""
        return self.num_body_parameters + self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)

    def to_hf(self, *, bos_id: int | None, eos_id: int | list[int]) -> dict[str, Any]:
        """The `config.json` of a transformers `LlamaForCausalLM` with this geometry (a Llama's, not a Qwen3's)."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": bos_id,
            "eos_token_id": eos_id,
            "pad_token_id": bos_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_positions,
            "mlp_bias": False,
            "num_attention_heads": self.num_heads,
            "num_hidden_layers": self.num_layers,
            "num_key_value_heads": self.num_kv_heads,
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", **(self.rope_scaling or {}), "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_embeddings,
            "torch_dtype": "bfloat16",
            "vocab_size": self.vocab_size,
        }

    @classmethod
    def from_hf(cls, values: dict[str, Any]) -> ModelConfig:
        """Read the geometry back from a `config.json`."""
        heads = values["num_attention_heads"]
        rope = values.get("rope_parameters") or {}
        return cls(
            hidden_size=values["hidden_size"],
            num_layers=values["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=values.get("num_key_value_heads", heads),
            intermediate_size=values["intermediate_size"],
            vocab_size=values["vocab_size"],
            head_dim=values.get("head_dim") or values["hidden_size"] // heads,
            rope_theta=values.get("rope_theta") or rope.get("rope_theta", 10_000.0),
            norm_epsilon=values["rms_norm_eps"],
            max_positions=values["max_position_embeddings"],
        )


TARGET = ModelConfig(hidden_size=512, num_layers=6, num_heads=8, num_kv_heads=2, intermediate_size=1152)
DRAFT = ModelConfig(hidden_size=256, num_layers=3, num_heads=4, num_kv_heads=1, intermediate_size=560)


@dataclass(frozen=True)
class GenerationConfig:
    """How a model answers many prompts at once."""

    rows: int = 6144  # sequences decoded together
    max_length_tokens: int = 512  # prompt and answer
    max_prompt_tokens: int = 300
    max_new_tokens: int = 224
    min_p: float = 0.08  # tokens less likely than this share of the likeliest one are never drawn
    steps_per_harvest: int = 16  # finished rows are replaced once per so many steps
    seed: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """One optimisation run; the schedule follows the clock and the epochs, whichever ends first."""

    tokens_per_microbatch: int = 65_536
    microbatches_per_step: int = 2
    max_length_tokens: int = 512
    matrix_lr: float = 0.02  # Muon, for the matrices
    embedding_lr: float = 3e-3  # AdamW, for the embedding table and the norms
    weight_decay: float = 0.2
    warmup_steps: int = 100
    decay_fraction: float = 1.0  # 1.0: cosine from the start; less: a plateau first
    prompt_loss_weight: float = 0.1
    budget_s: float = 480.0
    max_epochs: float = 5.0  # a run ends here when the budget has not ended it: beyond, a small corpus is memorised
    max_steps: int | None = None  # a number replaces both, for a run that repeats exactly
    seed: int = 0
    compile: bool = True


@dataclass(frozen=True)
class FamilyConfig:
    """Everything that the bundled family depends on besides the teacher and the prompt files."""

    target: ModelConfig = TARGET
    drafts: dict[str, ModelConfig] = field(
        default_factory=lambda: {"three_layers": DRAFT}  # with several, the best on the test prompts is bundled
    )
    seed: int = 0
    num_own_prompts: int = 120_000
    samples_per_prompt: int = 12
    samples_per_file_prompt: int = 24
    teacher_temperatures: tuple[float, ...] = (0.5, 0.0, 0.35, 0.6, 0.4, 0.55)
    teacher_budget_s: float = 330.0
    teacher_generation: GenerationConfig = GenerationConfig()
    tokenizer_sample_bytes: int = 24_000_000
    target_training: TrainConfig = TrainConfig()
    num_self_prompts: int = 260_000
    self_temperatures: tuple[float, ...] = (0.0, 0.7, 0.0, 1.0)
    self_budget_s: float = 75.0
    self_generation: GenerationConfig = GenerationConfig(rows=12_288, min_p=0.0, max_new_tokens=224)
    draft_training: TrainConfig = TrainConfig(
        budget_s=300.0,
        max_epochs=8.0,
        embedding_lr=4e-3,
        weight_decay=0.01,
        prompt_loss_weight=0.05,
        microbatches_per_step=1,
    )
    acceptance_loss_weight: float = 0.5  # share of total variation in the distillation loss once it is switched on
    acceptance_loss_from: float = 0.6  # fraction of the run after which it is switched on
    evaluation_prompts: int = 200  # for each dataset
    evaluation_new_tokens: int = 128
    device: str = "auto"

    @classmethod
    def from_json(cls, path: Path) -> FamilyConfig:
        """Read a file that names only the fields to change."""
        return replace_nested(cls(), json.loads(path.read_text()))


def replace_nested(config: Any, changes: dict[str, Any]) -> Any:
    """A copy of a dataclass with `changes`, where a nested dictionary changes a nested dataclass."""
    known = {f.name for f in dataclasses.fields(config)}
    unknown = set(changes) - known
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)} for {type(config).__name__}; known: {sorted(known)}")
    values: dict[str, Any] = {}
    for name, value in changes.items():
        current = getattr(config, name)
        if name == "drafts":
            values[name] = {key: ModelConfig(**fields) for key, fields in value.items()}
        elif dataclasses.is_dataclass(current) and isinstance(value, dict):
            values[name] = replace_nested(current, value)
        elif isinstance(current, tuple):
            values[name] = tuple(value)
        else:
            values[name] = value
    return dataclasses.replace(config, **values)
