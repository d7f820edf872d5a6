"""Shape of a decoder, read from a Hugging Face config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config_fields import check_architecture, check_fields, check_window
from ssd_lab.models.files import quantisation
from ssd_lab.models.rope_config import read_rope

_QWEN3_HEAD_DIM, _RMS_EPS = 128, 1e-6  # what transformers takes where the entry is missing


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
        """From config.json, of transformers 4 or 5.

        Raises ModelLoadError for another architecture, quantised weights, an entry that is missing or no number, and
        for every entry that changes what a model computes and is not implemented.
        """
        check_architecture(data)
        quantisation.check_config(data)
        check_fields(data)
        model_type = data["model_type"]
        hidden, heads = _whole(data, "hidden_size"), _whole(data, "num_attention_heads")
        num_layers, max_positions = _whole(data, "num_hidden_layers"), _whole(data, "max_position_embeddings")
        check_window(data, num_layers, max_positions)
        kv_heads = _whole(data, "num_key_value_heads", default=heads)
        head_dim = _whole(data, "head_dim", default=_QWEN3_HEAD_DIM if model_type == "qwen3" else hidden // heads)
        if heads % kv_heads or head_dim % 2 or ("head_dim" not in data and model_type == "llama" and hidden % heads):
            raise ModelLoadError(
                f"{heads} heads of size {head_dim} over {kv_heads} key/value heads and a hidden size of {hidden} fit "
                "no attention: config.json is damaged or of another model"
            )
        rope = read_rope(data, head_dim)
        return cls(
            model_type=model_type,
            hidden_size=hidden,
            num_layers=num_layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            mlp_size=_whole(data, "intermediate_size"),
            vocab_size=_whole(data, "vocab_size"),
            max_positions=max_positions,
            rms_eps=_epsilon(data),
            rope_theta=rope.theta,
            rope_scaling=rope.scaling,
            tie_embeddings=bool(data.get("tie_word_embeddings") or False),
            qk_norm=model_type == "qwen3",
            attention_bias=bool(data.get("attention_bias") or False),
            eos_token_ids=_token_ids(data, "eos_token_id"),
            bos_token_id=next(iter(_token_ids(data, "bos_token_id")), None),
        )

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


def _whole(data: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    """A positive whole number. default: for an entry that may be missing."""
    value = data.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise ModelLoadError(f"config.json has no entry {name!r}: is it the config of a causal language model?")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelLoadError(f"{name} is {value!r} in config.json: one positive whole number is expected")
    return value


def _epsilon(data: Mapping[str, Any]) -> float:
    value = data.get("rms_norm_eps", _RMS_EPS)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ModelLoadError(f"rms_norm_eps is {value!r} in config.json: a small number such as 1e-06 is expected")
    return float(value)


def _token_ids(data: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = data.get(name)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(not isinstance(one, int) or isinstance(one, bool) for one in ids):
        raise ModelLoadError(f"{name} is {value!r} in config.json: a token id or a list of them is expected")
    return tuple(one for one in ids if one >= 0)  # -1 is how some write "none"
