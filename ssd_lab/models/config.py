"""Shape of a decoder, read from a Hugging Face config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssd_lab.errors import ModelLoadError

SUPPORTED = ("llama", "qwen3")


@dataclass(frozen=True)
class ModelConfig:
    """A decoder of the Llama family (Llama 3.x, SmolLM2) or Qwen3 (normalised q and k heads)."""

    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_size: int
    vocab_size: int
    max_positions: int
    rms_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, Any] | None = None
    tie_embeddings: bool = False
    qk_norm: bool = False
    attention_bias: bool = False
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> ModelConfig:
        """From config.json, of transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters).

        Raises ModelLoadError for another architecture or a missing entry.
        """
        model_type = data.get("model_type")
        if model_type not in SUPPORTED:
            raise ModelLoadError(f"model_type {model_type!r} is not supported: {', '.join(SUPPORTED)} are")
        if data.get("mlp_bias") or data.get("hidden_act", "silu") != "silu":
            raise ModelLoadError(
                "the config asks for MLP biases or another activation than silu, which is not supported"
            )
        rope = dict(data.get("rope_parameters") or data.get("rope_scaling") or {})
        theta = rope.pop("rope_theta", None) or data.get("rope_theta") or 10000.0
        kind = rope.get("rope_type", rope.get("type", "default"))
        eos = data.get("eos_token_id")
        try:
            hidden, heads = data["hidden_size"], data["num_attention_heads"]
            return cls(
                model_type=model_type,
                hidden_size=hidden,
                num_layers=data["num_hidden_layers"],
                num_heads=heads,
                num_kv_heads=data.get("num_key_value_heads") or heads,
                head_dim=data.get("head_dim") or hidden // heads,
                mlp_size=data["intermediate_size"],
                vocab_size=data["vocab_size"],
                max_positions=data["max_position_embeddings"],
                rms_eps=data.get("rms_norm_eps", 1e-5),
                rope_theta=float(theta),
                rope_scaling=None if kind == "default" else rope,
                tie_embeddings=bool(data.get("tie_word_embeddings", False)),
                qk_norm=model_type == "qwen3",
                attention_bias=bool(data.get("attention_bias", False)),
                eos_token_ids=() if eos is None else (eos,) if isinstance(eos, int) else tuple(eos),
                bos_token_id=data.get("bos_token_id"),
            )
        except KeyError as error:
            raise ModelLoadError(
                f"config.json has no entry {error}: is it the config of a causal language model?"
            ) from error

    @property
    def num_parameters(self) -> int:
        """Weights in all (a tied embedding counted once)."""
        return self.num_non_embedding_parameters + self.vocab_size * self.hidden_size * (
            1 if self.tie_embeddings else 2
        )

    @property
    def num_non_embedding_parameters(self) -> int:
        """Weights without the embedding and the output head."""
        attention = self.hidden_size * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        biases = (
            (self.num_heads + 2 * self.num_kv_heads) * self.head_dim + self.hidden_size if self.attention_bias else 0
        )
        return self.num_layers * (attention + 3 * self.hidden_size * self.mlp_size + norms + biases) + self.hidden_size
