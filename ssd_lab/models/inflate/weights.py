"""Tensors of a wide model that computes the function of a small one, made one at a time where they are needed.

The rule for every weight that the small model does not determine: noise, unless only zero keeps the function. What an
idle unit or head contributes is 0 because *its own input* is: it reads nothing but the padding of the residual stream,
so whatever it writes with may be noise. docs/guides/full-size.md has the construction and why it is exact.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

import torch

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.weights import Choose, Weights, part_of
from ssd_lab.models.inflate.plan import InflationPlan

NOISE_STD: Final = 0.02  # about that of trained weights
CONSTANT_GAIN: Final = 2.0**-10  # the final norm's weight for the constant: a tied head reads it for real tokens too
UNUSED_TOKEN: Final = -(2.0**40)  # what the head makes of the constant for tokens that the small model does not have
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


class InflatedWeights:
    """The wide model's weights, named as in a Hugging Face checkpoint; reading one makes it.

    shapes: of all tensors, in the order of the forward pass. Every tensor comes on `device` in `dtype` (float32 or
    bfloat16), the same each time for the same seed and kind of device. Reading takes the memory of one tensor and of
    the small ones in it.
    """

    def __init__(
        self, plan: InflationPlan, small: Weights, *, dtype: torch.dtype, device: torch.device, seed: int = 0
    ) -> None:
        if dtype not in (torch.float32, torch.bfloat16):
            raise ModelLoadError(
                f"an inflated model in {str(dtype).removeprefix('torch.')} is not possible: the logits of tokens that "
                "the small model lacks are beyond its range; take bfloat16 or float32"
            )
        self._plan = plan
        self._small = small
        self._dtype = dtype
        self._device = device
        self._seed = seed
        self._small_names = small.names()
        self.shapes = _shapes(plan.config)
        self._makers: dict[str, Callable[[str], torch.Tensor]] = {
            "input_layernorm.weight": self._norm,
            "post_attention_layernorm.weight": self._norm,
            "self_attn.q_proj.weight": self._query,
            "self_attn.k_proj.weight": self._key,
            "self_attn.v_proj.weight": self._value,
            "self_attn.o_proj.weight": self._output,
            "mlp.gate_proj.weight": self._gate,
            "mlp.up_proj.weight": self._up,
            "mlp.down_proj.weight": self._down,
        }

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self.shapes)

    def read(self, name: str) -> torch.Tensor:
        """Make one tensor. Raises ModelLoadError if the small model lacks what goes into it."""
        if name == "model.embed_tokens.weight":
            return self._embedding(name)
        if name == "lm_head.weight":
            return self._head(name)
        if name == "model.norm.weight":
            return self._final_norm(name)
        match = _LAYER.fullmatch(name)
        if match is None or match[2] not in self._makers:
            raise ModelLoadError(f"an inflated model has no tensor {name}")
        return self._makers[match[2]](name)

    def read_part(self, name: str, dim: int, choose: Choose) -> torch.Tensor:
        """Make one tensor, and keep a part."""
        return part_of(self.read(name), dim, choose).clone()

    def place(self, name: str) -> str:
        """Made here."""
        return "the inflated model"

    def _embedding(self, name: str) -> torch.Tensor:
        residual, vocab = self._plan.residual, self._plan.small.vocab_size
        table = self._noise(name)
        self._write_rows(table[:vocab].T, self._source(name).T)
        if not residual.constant:
            return table
        if self._plan.config.tie_embeddings:
            table[vocab:, -1] = UNUSED_TOKEN
        else:  # so that even a token that the small model lacks leaves the padding of the residual stream as it must be
            self._write_rows(table[vocab:].T, table[vocab:, : residual.small].T.clone())
            table[vocab:, -1] = residual.constant
        table[:vocab, -1] = residual.constant
        return table

    def _head(self, name: str) -> torch.Tensor:
        vocab = self._plan.small.vocab_size
        head = self._noise(name)
        tied = self._plan.small.tie_embeddings
        self._write_columns(head[:vocab], self._source("model.embed_tokens.weight" if tied else name))
        if self._plan.residual.constant:
            head[:vocab, -1] = 0
            head[vocab:, -1] = UNUSED_TOKEN
        return head

    def _final_norm(self, name: str) -> torch.Tensor:
        weight = self._scaled_norm(self._source(name, torch.float32))
        if self._plan.residual.constant:
            weight[-1] = CONSTANT_GAIN
        return weight

    def _norm(self, name: str) -> torch.Tensor:
        source = self._source_name(name)
        if source is None:
            small = 1 + self._noise(name)[: self._plan.residual.small].float()
        else:
            small = self._source(source, torch.float32)
        return self._scaled_norm(small)

    def _scaled_norm(self, small: torch.Tensor) -> torch.Tensor:
        """Norm weights with 0 for the padding: what matrices read there is exactly 0 whatever the residual holds."""
        weight = torch.zeros(self._plan.config.hidden_size, dtype=self._dtype, device=self._device)
        weight[: len(small)] = (small * self._plan.residual.norm_scale).to(self._dtype)
        return weight

    def _query(self, name: str) -> torch.Tensor:
        weight, source = self._noise(name), self._source_name(name)
        if source is not None:
            small = (self._source(source, torch.float32) * self._plan.query_scale).to(self._dtype)
            self._place_head_rows(weight, small, self._plan.query_heads, read_padding_between=True)
        return weight

    def _key(self, name: str) -> torch.Tensor:
        weight, source = self._noise(name), self._source_name(name)
        if source is not None:
            self._place_head_rows(weight, self._source(source), self._plan.kv_heads, read_padding_between=False)
        return weight

    def _value(self, name: str) -> torch.Tensor:
        weight, source = self._noise(name), self._source_name(name)
        if source is None:
            self._read_padding_only(weight)
            return weight
        self._place_head_rows(weight, self._source(source), self._plan.kv_heads, read_padding_between=True)
        heads = weight.view(len(self._plan.kv_heads), -1, weight.shape[1])
        for place, head in enumerate(self._plan.kv_heads):
            if head is None:
                self._read_padding_only(heads[place])
        return weight

    def _output(self, name: str) -> torch.Tensor:
        plan, source = self._plan, self._source_name(name)
        weight = self._noise(name)
        if source is None:  # its values are 0
            return weight
        small = self._source(source).view(plan.residual.small, -1, len(plan.rotary))
        heads = weight.view(weight.shape[0], len(plan.query_heads), -1)
        group = len(plan.query_heads) // len(plan.kv_heads)
        rotary = self._rotary()
        for place, query in enumerate(plan.query_heads):
            if plan.kv_heads[place // group] is None:
                continue  # its values are 0
            columns = torch.zeros(weight.shape[0], len(rotary), dtype=self._dtype, device=self._device)
            if query is not None:
                self._write_rows(columns, small[:, query])
            heads[:, place].index_copy_(1, rotary, columns)
        return weight

    def _gate(self, name: str) -> torch.Tensor:
        weight, source = self._noise(name), self._source_name(name)
        if source is not None:
            self._write_columns(weight[: self._plan.small.mlp_size], self._source(source))
        return weight

    def _up(self, name: str) -> torch.Tensor:
        weight, source = self._noise(name), self._source_name(name)
        units = 0 if source is None else self._plan.small.mlp_size
        if source is not None:
            self._write_columns(weight[:units], self._source(source))
        self._read_padding_only(weight[units:])
        return weight

    def _down(self, name: str) -> torch.Tensor:
        weight, source = self._noise(name), self._source_name(name)
        if source is not None:  # the other units are 0
            self._write_rows(weight[:, : self._plan.small.mlp_size], self._source(source))
        return weight

    def _place_head_rows(
        self,
        weight: torch.Tensor,
        small: torch.Tensor,
        heads: tuple[int | None, ...],
        *,
        read_padding_between: bool,
    ) -> None:
        """Write rows of small heads at the rotary places of wide ones; see `_read_padding_only` for those between."""
        wide_heads = weight.view(len(heads), -1, weight.shape[1])
        small_heads = small.view(-1, len(self._plan.rotary), small.shape[1])
        rotary = self._rotary()
        for place, head in enumerate(heads):
            if head is None:
                continue
            rows = wide_heads[place].index_select(0, rotary)
            self._write_columns(rows, small_heads[head])
            if read_padding_between:
                self._read_padding_only(wide_heads[place])
            wide_heads[place].index_copy_(0, rotary, rows)

    def _read_padding_only(self, rows: torch.Tensor) -> None:
        """Make the results of these rows 0: they read the residual's padding, whose norm weight is 0."""
        rows[:, : self._plan.residual.small] = 0

    def _write_columns(self, rows: torch.Tensor, small: torch.Tensor) -> None:
        """Let rows of a matrix that reads the residual stream read what the small ones read."""
        rows[:, : self._plan.residual.small] = small

    def _write_rows(self, columns: torch.Tensor, small: torch.Tensor) -> None:
        """Let columns of a matrix that writes the residual stream write what the small ones write, and its copies."""
        residual = self._plan.residual
        columns.zero_()
        for index, scale in enumerate((1.0, *residual.scales)):
            columns[index * residual.small : (index + 1) * residual.small] = small * scale

    def _source_name(self, name: str) -> str | None:
        """The small model's name of a layer's tensor; None in a layer that the small model does not have."""
        match = _LAYER.fullmatch(name)
        index = None if match is None else self._plan.layers[int(match[1])]
        return None if match is None or index is None else f"model.layers.{index}.{match[2]}"

    def _source(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        if name not in self._small_names:
            raise ModelLoadError(f"the small model lacks the tensor {name}: its config describes another model")
        return self._small.read(name).to(self._device, dtype or self._dtype)

    def _rotary(self) -> torch.Tensor:
        return torch.tensor(self._plan.rotary, device=self._device)

    def _noise(self, name: str) -> torch.Tensor:
        digest = hashlib.blake2b(f"{self._seed}:{name}".encode(), digest_size=7).digest()
        generator = torch.Generator(self._device).manual_seed(int.from_bytes(digest, "big"))
        tensor = torch.empty(self.shapes[name], dtype=self._dtype, device=self._device)
        return tensor.normal_(0.0, NOISE_STD, generator=generator)


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden, vocab, mlp = config.hidden_size, config.vocab_size, config.mlp_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (mlp, hidden),
        "mlp.up_proj.weight": (mlp, hidden),
        "mlp.down_proj.weight": (hidden, mlp),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for index in range(config.num_layers):
        shapes |= {f"model.layers.{index}.{part}": shape for part, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes
