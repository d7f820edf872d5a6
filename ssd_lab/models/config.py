"""The shape of a decoder, whatever file it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """model_type: names its family (`models/families/`). qk_norm: are query and key heads normed? extra: numbers that
    only the family's own code reads. more_parameters: weights of all layers beyond those of dense blocks.
    """

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
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    more_parameters: int = field(default=0, repr=False)

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
        layer = attention + 3 * self.hidden_size * self.mlp_size + norms + biases
        return self.num_layers * layer + self.hidden_size + self.more_parameters
