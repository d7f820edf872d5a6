"""A Llama to train, or to read as a target: packed sequences, no padding, transformers' parameter names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_lab.kernels.rope import attention_factor, inverse_frequencies
from ssd_lab.models.config import ModelConfig


def rope_tables(config: ModelConfig, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each [max_positions, head_dim], in transformers' half-split layout."""
    frequencies = inverse_frequencies(config.head_dim, config.rope_theta, config.rope_scaling).to(device)
    angles = torch.arange(config.max_positions, device=device)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    factor = attention_factor(config.rope_scaling)
    return angles.cos() * factor, angles.sin() * factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [tokens, heads, head_dim] with cos, sin [tokens, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat([-second, first], dim=-1)
    return x * cos[:, None].to(x.dtype) + rotated * sin[:, None].to(x.dtype)


def packed_attention(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, max_length: int) -> Tensor:
    """Causal attention within each packed sequence.

    query [tokens, heads, head_dim]; key, value [tokens, kv_heads, head_dim]; starts [sequences + 1] int32, where
    repeated values at the end stand for empty sequences. Returns [tokens, heads, head_dim].
    """
    if query.is_cuda:
        return torch.ops.aten._flash_attention_forward(
            query, key, value, starts, starts, max_length, max_length, 0.0, True, False
        )[0]
    tokens = query.shape[0]
    # A position belongs to the last sequence that starts at or before it; side="right" skips empty sequences.
    owner = torch.searchsorted(starts, torch.arange(tokens, dtype=starts.dtype), right=True)
    allowed = (owner[:, None] == owner[None, :]) & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    out = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        key.transpose(0, 1)[None],
        value.transpose(0, 1)[None],
        attn_mask=allowed,
        enable_gqa=True,
    )
    return out[0].transpose(0, 1)


class TrainableLinear(nn.Linear):
    """A linear map whose weight follows the dtype of its input: float32 masters, bfloat16 products."""

    def __init__(self, num_inputs: int, num_outputs: int, *, bias: bool = False) -> None:
        super().__init__(num_inputs, num_outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., num_inputs] to [..., num_outputs]."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class TrainableAttention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.num_heads * config.head_dim
        kv_width = config.num_kv_heads * config.head_dim
        self.q_proj = TrainableLinear(config.hidden_size, width, bias=config.attention_bias)
        self.k_proj = TrainableLinear(config.hidden_size, kv_width, bias=config.attention_bias)
        self.v_proj = TrainableLinear(config.hidden_size, kv_width, bias=config.attention_bias)
        self.o_proj = TrainableLinear(width, config.hidden_size, bias=config.attention_bias)
        if config.qk_norm:
            self.q_norm = TrainableRmsNorm(config.head_dim, config.rms_eps)
            self.k_norm = TrainableRmsNorm(config.head_dim, config.rms_eps)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated query [tokens, heads, head_dim] and key, and value, of x [tokens, hidden]."""
        query = self.q_proj(x).unflatten(-1, (-1, self.config.head_dim))
        key = self.k_proj(x).unflatten(-1, (-1, self.config.head_dim))
        value = self.v_proj(x).unflatten(-1, (-1, self.config.head_dim))
        if self.config.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        return rotate(query, cos, sin), rotate(key, cos, sin), value


class TrainableMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = TrainableLinear(config.hidden_size, config.mlp_size)
        self.up_proj = TrainableLinear(config.hidden_size, config.mlp_size)
        self.down_proj = TrainableLinear(config.mlp_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [tokens, hidden] to [tokens, hidden]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TrainableRmsNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size] over its last dimension."""
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.epsilon)


class TrainableLayer(nn.Module):
    """One decoder layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = TrainableRmsNorm(config.hidden_size, config.rms_eps)
        self.self_attn = TrainableAttention(config)
        self.post_attention_layernorm = TrainableRmsNorm(config.hidden_size, config.rms_eps)
        self.mlp = TrainableMlp(config)


class Body(nn.Module):
    """Embedding, layers and final norm, named as in transformers."""

    layers: Sequence[TrainableLayer]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(TrainableLayer(config) for _ in range(config.num_layers))  # type: ignore[assignment]
        self.norm = TrainableRmsNorm(config.hidden_size, config.rms_eps)


class TrainableLlama(nn.Module):
    """A Llama (or Qwen3) whose state dict is that of transformers' `...ForCausalLM`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        if not config.tie_embeddings:
            self.lm_head = TrainableLinear(config.hidden_size, config.vocab_size)
        self.register_buffer("cos", torch.empty(0), persistent=False)
        self.register_buffer("sin", torch.empty(0), persistent=False)
        self.compute_dtype: torch.dtype | None = None  # None: the dtype of the weights

    def reset_rope(self, device: torch.device | str) -> None:
        """Recompute the rotary tables in float32, whatever dtype the weights were cast to."""
        self.cos, self.sin = rope_tables(self.config, device)

    def initialise(self, generator: torch.Generator) -> None:
        """Normal weights of 0.02, what writes to the residual stream scaled down by depth; and the rotary tables."""
        self.reset_rope("cpu")
        residual_scale = (2 * self.config.num_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = residual_scale if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 * scale, generator=generator)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        starts: Tensor,
        max_length: int,
        features: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Final hidden states [tokens, hidden] of packed tokens [tokens] at positions [tokens].

        `features` is filled as by `models.decoder.Decoder`: key i, the residual stream at the input of layer i
        [tokens, hidden].
        """
        x = self.model.embed_tokens(tokens)
        x = x if self.compute_dtype is None else x.to(self.compute_dtype)
        cos, sin = self.cos[positions], self.sin[positions]
        for index, layer in enumerate(self.model.layers):
            if features is not None and index in features:
                features[index] = x
            query, key, value = layer.self_attn.project(layer.input_layernorm(x), cos, sin)
            attended = packed_attention(query, key, value, starts, max_length)
            x = x + layer.self_attn.o_proj(attended.flatten(1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        if features is not None and len(self.model.layers) in features:
            features[len(self.model.layers)] = x
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [tokens, vocab] of hidden states [tokens, hidden]."""
        return F.linear(hidden, self.output_weight.to(hidden.dtype))

    @property
    def output_weight(self) -> Tensor:
        """What makes logits [vocab, hidden] of hidden states: the embedding table where that is shared."""
        return self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight


def new_model(config: ModelConfig, *, seed: int, device: torch.device | str) -> TrainableLlama:
    """A freshly initialised model with float32 weights, computing in bfloat16 on a GPU."""
    model = TrainableLlama(config)
    model.initialise(torch.Generator().manual_seed(seed))
    model = model.to(device)
    if str(device).startswith("cuda"):
        model.compute_dtype = torch.bfloat16
    return model
