"""Shapes of published models: what a model of that size reads and computes, without its weights."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config import ModelConfig

BYTES_PER_WEIGHT = 2  # these models are published in bfloat16


@dataclass(frozen=True)
class Geometry:
    """A published model's shape. repository: the hub id whose config.json has these numbers."""

    name: str
    repository: str
    config: ModelConfig

    @property
    def num_parameters(self) -> int:
        """Weights in all."""
        return self.config.num_parameters

    @property
    def bytes(self) -> int:
        """Size of all weights in bfloat16."""
        return self.num_parameters * BYTES_PER_WEIGHT

    @property
    def step_bytes(self) -> int:
        """Weights in bfloat16 that one decoding step reads: all but the embedding's table, plus the output head."""
        config = self.config
        return (config.num_non_embedding_parameters + config.vocab_size * config.hidden_size) * BYTES_PER_WEIGHT


def _llama(
    hidden: int, layers: int, heads: int, mlp: int, *, head_dim: int, tied: bool, factor: float = 8.0
) -> ModelConfig:
    return ModelConfig(
        model_type="llama",
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=head_dim,
        mlp_size=mlp,
        vocab_size=128256,
        max_positions=131072,
        rms_eps=1e-5,
        rope_theta=500000.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        tie_embeddings=tied,
    )


def _qwen3(hidden: int, layers: int, heads: int, mlp: int, *, tied: bool) -> ModelConfig:
    return ModelConfig(
        model_type="qwen3",
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=128,
        mlp_size=mlp,
        vocab_size=151936,
        max_positions=40960,
        rms_eps=1e-6,
        rope_theta=1000000.0,
        tie_embeddings=tied,
        qk_norm=True,
    )


_SMOLLM2_135M = ModelConfig(
    model_type="llama",
    hidden_size=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    mlp_size=1536,
    vocab_size=49152,
    max_positions=8192,
    rms_eps=1e-5,
    rope_theta=100000.0,
    tie_embeddings=True,
)

GEOMETRIES = {
    geometry.name: geometry
    for geometry in (
        Geometry("llama-1b", "meta-llama/Llama-3.2-1B-Instruct",
                 _llama(2048, 16, 32, 8192, head_dim=64, tied=True, factor=32.0)),
        Geometry("llama-3b", "meta-llama/Llama-3.2-3B-Instruct",
                 _llama(3072, 28, 24, 8192, head_dim=128, tied=True, factor=32.0)),
        Geometry("llama-8b", "meta-llama/Llama-3.1-8B-Instruct",
                 _llama(4096, 32, 32, 14336, head_dim=128, tied=False)),
        Geometry("llama-70b", "meta-llama/Llama-3.1-70B-Instruct",
                 _llama(8192, 80, 64, 28672, head_dim=128, tied=False)),
        Geometry("qwen3-0.6b", "Qwen/Qwen3-0.6B", _qwen3(1024, 28, 16, 3072, tied=True)),
        Geometry("qwen3-1.7b", "Qwen/Qwen3-1.7B", _qwen3(2048, 28, 16, 6144, tied=True)),
        Geometry("qwen3-4b", "Qwen/Qwen3-4B", _qwen3(2560, 36, 32, 9728, tied=True)),
        Geometry("qwen3-8b", "Qwen/Qwen3-8B", _qwen3(4096, 36, 32, 12288, tied=False)),
        Geometry("qwen3-14b", "Qwen/Qwen3-14B", _qwen3(5120, 40, 40, 17408, tied=False)),
        Geometry("qwen3-32b", "Qwen/Qwen3-32B", _qwen3(5120, 64, 64, 25600, tied=False)),
        Geometry("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct", _SMOLLM2_135M),
    )
}  # fmt: skip


def find_geometry(name: str) -> Geometry:
    """The geometry of that name, in any case. Raises ModelLoadError, which lists the names."""
    try:
        return GEOMETRIES[name.strip().lower()]
    except KeyError:
        raise ModelLoadError(f"geometry {name!r} is not known: there are {', '.join(GEOMETRIES)}") from None
