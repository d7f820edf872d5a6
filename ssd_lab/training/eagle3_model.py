"""The EAGLE3 head as a module to train: unrolled over padded sequences, as it will draft.

EAGLE-3 (Li et al., arXiv 2503.01840): its training-time test. The head that drafts is `ssd_lab.models.eagle3.head`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_lab.models.config import ModelConfig
from ssd_lab.models.eagle3.config import AUX_LAYERS
from ssd_lab.models.files.config_json import config_to_json
from ssd_lab.training.model import TrainableLinear, TrainableLlama, TrainableMlp, TrainableRmsNorm, rope_tables


@dataclass(frozen=True)
class HeadConfig:
    """Geometry of a head for one target.

    feature_layers: target layers whose *input* is read; the number of layers stands for the input of the final norm.
    draft_vocab_size: None drafts from the target's whole vocabulary with the target's own output head.
    """

    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    feature_layers: tuple[int, ...]
    head_dim: int = 64
    draft_vocab_size: int | None = None

    def layer(self, target: ModelConfig) -> ModelConfig:
        """The head's layer: as wide as the target, with its rotation and positions."""
        return replace(
            target,
            model_type="llama",
            num_layers=1,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            mlp_size=self.intermediate_size,
            tie_embeddings=False,
            qk_norm=False,
            attention_bias=False,
        )

    def to_hf(self, target: ModelConfig) -> dict[str, Any]:
        """config.json in the layout of SafeAILab and SpecForge, with the feature layers as layer inputs."""
        return config_to_json(self.layer(target), dtype="bfloat16") | {
            "architectures": ["LlamaForCausalLMEagle3"],
            "draft_vocab_size": self.draft_vocab_size or target.vocab_size,
            "target_hidden_size": target.hidden_size,
            AUX_LAYERS: list(self.feature_layers),
        }


class HeadAttention(nn.Module):
    """Projections of the layer: twice as many inputs as an ordinary one has."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inputs, width, kv_width = (
            2 * config.hidden_size,
            config.num_heads * config.head_dim,
            config.num_kv_heads * config.head_dim,
        )
        self.q_proj = TrainableLinear(inputs, width)
        self.k_proj = TrainableLinear(inputs, kv_width)
        self.v_proj = TrainableLinear(inputs, kv_width)
        self.o_proj = TrainableLinear(width, config.hidden_size)


class HeadLayer(nn.Module):
    """The one decoder layer, named as in published checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = TrainableRmsNorm(config.hidden_size, config.rms_eps)
        self.hidden_norm = TrainableRmsNorm(config.hidden_size, config.rms_eps)
        self.self_attn = HeadAttention(config)
        self.post_attention_layernorm = TrainableRmsNorm(config.hidden_size, config.rms_eps)
        self.mlp = TrainableMlp(config)


class TrainableHead(nn.Module):
    """Parameters and the unrolled forward. The target's embedding, and where shared its output head, are not in it."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: HeadConfig, target: ModelConfig) -> None:
        super().__init__()
        self.config, self.layer_config = config, config.layer(target)
        self.fc = TrainableLinear(len(config.feature_layers) * target.hidden_size, target.hidden_size)
        self.midlayer = HeadLayer(self.layer_config)
        self.norm = TrainableRmsNorm(target.hidden_size, target.rms_eps)
        self.lm_head: TrainableLinear | None = None
        if config.draft_vocab_size is not None:
            self.lm_head = TrainableLinear(target.hidden_size, config.draft_vocab_size)
        self.compute_dtype: torch.dtype | None = None  # None: the dtype of the features
        cos, sin = rope_tables(self.layer_config, "cpu")
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def initialise(self, target: TrainableLlama, draft_ids: Tensor | None, generator: torch.Generator) -> None:
        """Small random matrices; final norm and output head as the target's.

        The features are not passed through at first: the highest one says the token that comes next, and a head has to
        say the one after it, so it would begin with something to unlearn.

        draft_ids: target ids of the draft vocabulary, in order; None where it is the whole one.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 * (0.5 if into_residual else 1.0), generator=generator)
        with torch.no_grad():
            self.norm.weight.copy_(target.model.norm.weight)
            if self.lm_head is not None and draft_ids is not None:
                self.lm_head.weight.copy_(target.output_weight[draft_ids])

    def matrices(self) -> list[Tensor]:
        """What Muon updates."""
        return [self.fc.weight, *(p for p in self.midlayer.parameters() if p.ndim == 2)]

    def unrolled(self, features: Tensor, tokens: Tensor, embedding: Tensor, num_steps: int) -> Iterator[Tensor]:
        """The hidden states after the final norm `[batch, length, hidden]` of each of `num_steps` draft steps.

        features `[batch, length, layers * hidden]`, tokens `[batch, length]`, embedding `[vocab, hidden]`. Row i of
        step j has read features 0 .. i and tokens up to i + 1 + j, and predicts token i + 2 + j; what lies past a
        sequence's end is meaningless. It attends to the rows 0 .. i of step 0, which hold true features, and to the
        rows i of the steps after that, which are its own: just what a draft that began at i sees in its j-th step.
        """
        dtype = self.compute_dtype or features.dtype
        length = tokens.shape[1]
        cos, sin = self.cos.to(dtype), self.sin.to(dtype)
        block = _Unrolled(self.midlayer, self.layer_config)
        hidden = self.fc(features.to(dtype))
        for step in range(num_steps):
            following = torch.roll(tokens, -(step + 1), dims=1)
            embedded = F.embedding(following, embedding).to(dtype)
            positions = (torch.arange(length, device=tokens.device) + step).clamp(max=cos.shape[0] - 1)
            hidden = block(embedded, hidden, cos[positions], sin[positions])
            yield self.norm(hidden)

    def logits(self, normed: Tensor, output_weight: Tensor) -> Tensor:
        """Logits over the draft vocabulary; output_weight is the target's, for a head without one."""
        return F.linear(normed, output_weight.to(normed.dtype)) if self.lm_head is None else self.lm_head(normed)


class _Unrolled:
    """The layer over successive steps: keeps the keys and values of the steps before."""

    def __init__(self, layer: HeadLayer, config: ModelConfig) -> None:
        self.layer, self.config = layer, config
        self.keys: list[Tensor] = []  # [batch, kv_heads, length, head_dim] of each step
        self.values: list[Tensor] = []

    def __call__(self, embedded: Tensor, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        layer = self.layer
        inputs = torch.cat([layer.input_layernorm(embedded), layer.hidden_norm(hidden)], -1)
        hidden = hidden + layer.self_attn.o_proj(self._attend(inputs, cos, sin))
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    def _attend(self, inputs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        attention, config = self.layer.self_attn, self.config
        batch, length, _ = inputs.shape
        kv_heads, group = config.num_kv_heads, config.num_heads // config.num_kv_heads

        def heads(x: Tensor) -> Tensor:
            return x.view(batch, length, -1, config.head_dim).transpose(1, 2)

        query = _rotated(heads(attention.q_proj(inputs)), cos, sin) * config.head_dim**-0.5
        self.keys.append(_rotated(heads(attention.k_proj(inputs)), cos, sin))
        self.values.append(heads(attention.v_proj(inputs)))
        query = query.reshape(batch, kv_heads, group, length, config.head_dim)
        text = torch.matmul(query.flatten(2, 3), self.keys[0].transpose(2, 3)).view(
            batch, kv_heads, group, length, length
        )
        later = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        text = text.masked_fill(later, torch.finfo(text.dtype).min)
        own = [(query * key[:, :, None]).sum(-1, keepdim=True) for key in self.keys[1:]]
        weights = torch.cat([text, *own], -1).float().softmax(-1).to(inputs.dtype)
        from_text = torch.matmul(weights[..., :length].reshape(batch, kv_heads, group * length, length), self.values[0])
        attended = from_text.view(batch, kv_heads, group, length, config.head_dim)
        for index, value in enumerate(self.values[1:]):
            attended = attended + weights[..., length + index, None] * value[:, :, None]
        return attended.permute(0, 3, 1, 2, 4).reshape(batch, length, -1)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `[batch, heads, length, head_dim]` with cos, sin `[length, head_dim]`."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin
