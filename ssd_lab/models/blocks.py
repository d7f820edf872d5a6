"""The blocks of a decoder: attention and an MLP, each behind a norm, and how they are read from named tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ssd_lab.kernels.interface import HeadLayout, Kernels
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.product import Product
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.weights import TensorReader
from ssd_lab.models.group import Group

Total = Callable[[Product], Product]  # the sum over all ranks
POSITIONS_BEYOND_CONTEXT = 128  # a draft may guess past the end of the context; what it guesses there is never used


class Mlp(Protocol):
    """What a block does to each row by itself. A row's bits must not depend on the rows beside it."""

    def __call__(self, inputs: torch.Tensor, kernels: Kernels[Any]) -> Product:
        """Normed rows `[n, hidden]` -> what they add to the residual stream `[n, hidden]`."""
        ...

    def linears(self) -> list[Linear]:
        """Its matrix products."""
        ...


@dataclass(frozen=True)
class GatedMlp:
    """down(silu(gate) * up); gate and up are one product. total: of what ranks make of their columns."""

    gate_up: Linear
    down: Linear
    total: Total | None = None

    def __call__(self, inputs: torch.Tensor, kernels: Kernels[Any]) -> Product:
        """See `Mlp`."""
        added = self.down.unsummed(self.gate_up.gated(inputs, kernels.gated_silu))
        return added if self.total is None else self.total(added)

    def linears(self) -> list[Linear]:
        """Both."""
        return [self.gate_up, self.down]


@dataclass(frozen=True)
class Attention:
    """q, k and v in one product; norms of q and k heads where the family has them. total: of what ranks make of their
    heads.
    """

    qkv: Linear
    output: Linear
    query_norm: RmsNorm | None = None
    key_norm: RmsNorm | None = None
    total: Total | None = None

    def __call__(self, inputs: torch.Tensor, layer_cache: torch.Tensor, plan: Any, kernels: Kernels[Any]) -> Product:
        """Normed rows `[n, size]` -> what they add to the residual stream `[n, hidden]`; their K/V is written."""
        heads = self.qkv.unsummed(inputs)
        queries = kernels.rope_and_write(heads, layer_cache, plan, self.query_norm, self.key_norm)
        added = self.output.unsummed(kernels.attention(queries, layer_cache, plan))
        return added if self.total is None else self.total(added)

    def linears(self) -> list[Linear]:
        """Both."""
        return [self.qkv, self.output]


@dataclass(frozen=True)
class Block:
    """One layer."""

    input_norm: RmsNorm
    attention: Attention
    mlp_norm: RmsNorm
    mlp: Mlp

    def __call__(
        self, hidden: torch.Tensor, normed: torch.Tensor, layer_cache: torch.Tensor, plan: Any, kernels: Kernels[Any]
    ) -> tuple[torch.Tensor, Product]:
        """hidden: the residual stream `[n, hidden]`; normed: it after `input_norm`. Returns the stream after attention
        and what the MLP adds to it: the next norm adds them in one kernel.
        """
        attended = self.attention(normed, layer_cache, plan, kernels)
        hidden, normed = kernels.add_rms_norm(hidden, attended, self.mlp_norm)
        return hidden, self.mlp(normed, kernels)

    def linears(self) -> list[Linear]:
        """Its matrix products."""
        return [*self.attention.linears(), *self.mlp.linears()]


@dataclass(frozen=True)
class Parts:
    """What a family makes a decoder from.

    pack: see `Linear`. num_tokens: see `Decoder`; None: all ids. on_layer: called when a layer is there. group: the
    ranks that share the model, of which config and tensors are one's part; None: it is whole.
    """

    config: ModelConfig
    tensors: TensorReader
    kernels: Kernels[Any]
    pack: bool = True
    num_tokens: int | None = None
    on_layer: Callable[[], None] = lambda: None
    group: Group | None = None

    @property
    def total(self) -> Total | None:
        """For products whose inputs are shared out."""
        return None if self.group is None else self.group.unmade

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        """A product with this weight `[out, in]`, by the kernels' own means where they have some."""
        return Linear(weight, bias, pack=self.pack, few_rows=self.kernels.few_rows(weight, bias))

    def norm(self, name: str, size: int) -> RmsNorm:
        """The norm of that name."""
        return RmsNorm(self.tensors.take(f"{name}.weight", size), self.config.rms_eps)


def read_block(parts: Parts, prefix: str) -> Block:
    """The dense block of Llama and its like, whose tensors' names begin with `prefix`."""
    hidden = parts.config.hidden_size
    return Block(
        input_norm=parts.norm(f"{prefix}input_layernorm", hidden),
        attention=read_attention(parts, prefix, hidden, output_bias=parts.config.attention_bias),
        mlp_norm=parts.norm(f"{prefix}post_attention_layernorm", hidden),
        mlp=read_mlp(parts, f"{prefix}mlp"),
    )


def read_attention(parts: Parts, prefix: str, inputs: int, *, output_bias: bool) -> Attention:
    """inputs: numbers of a row that it reads. output_bias: has its output product one?"""
    config, take = parts.config, parts.tensors.take
    hidden, size, name = config.hidden_size, config.head_dim, f"{prefix}self_attn"
    queries, keys = config.num_heads * size, config.num_kv_heads * size
    joined = [f"{name}.{each}_proj" for each in "qkv"]
    shapes: list[tuple[int, ...]] = [(queries, inputs), (keys, inputs), (keys, inputs)]
    weight = parts.tensors.take_joined([f"{each}.weight" for each in joined], shapes)
    bias = None
    if config.attention_bias:
        bias = parts.tensors.take_joined([f"{each}.bias" for each in joined], [(queries,), (keys,), (keys,)])
    return Attention(
        qkv=parts.linear(weight, bias),
        output=parts.linear(
            take(f"{name}.o_proj.weight", hidden, queries),
            take(f"{name}.o_proj.bias", hidden) if output_bias else None,
        ),
        query_norm=parts.norm(f"{name}.q_norm", size) if config.qk_norm else None,
        key_norm=parts.norm(f"{name}.k_norm", size) if config.qk_norm else None,
        total=parts.total,
    )


def read_mlp(parts: Parts, name: str) -> GatedMlp:
    """The dense one, whose tensors' names begin with `name`."""
    config = parts.config
    names = [f"{name}.{each}_proj.weight" for each in ("gate", "up")]
    gate_up = parts.tensors.take_joined(names, [(config.mlp_size, config.hidden_size)] * 2)
    down = parts.tensors.take(f"{name}.down_proj.weight", config.hidden_size, config.mlp_size)
    return GatedMlp(parts.linear(gate_up), parts.linear(down), parts.total)


def head_layout(config: ModelConfig) -> HeadLayout:
    """How a row of the q/k/v product is cut."""
    return HeadLayout(config.num_heads, config.num_kv_heads, config.head_dim)


def rotary_table(config: ModelConfig, device: torch.device) -> RotaryTable:
    """The rotations of every position, and of some past the context."""
    positions = config.max_positions + POSITIONS_BEYOND_CONTEXT
    return RotaryTable(config.head_dim, config.rope_theta, config.rope_scaling, positions, device)
