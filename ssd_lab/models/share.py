"""One rank's share of a model: its config, and its part of each tensor, read without the rest.

Attention is shared out by heads and the MLP by columns, so that each needs one sum over the ranks (Megatron-LM, arXiv
1909.08053). The output head is shared out by token ids: it is as large as several layers, and only its logits are
gathered. The embedding is whole on every rank: of it a step reads a row for each token, and a part of it would cost
one more sum. Where there are more ranks than K/V heads, each of these is held by several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from functools import partial

import torch
import torch.nn.functional as F

from ssd_lab.errors import ConfigError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.weights import Choose, Weights
from ssd_lab.models.group import Group, rows_each

SUMS_A_LAYER = 2  # over the ranks: behind attention and behind the MLP


class Cut(Enum):
    """How ranks share a tensor `[out, in]` (or a bias `[out]`)."""

    ROWS = auto()  # outputs, in equal parts
    KEY_VALUE_ROWS = auto()  # outputs, by K/V heads
    COLUMNS = auto()  # inputs, in equal parts: products are summed
    ONCE = auto()  # whole on the first rank, zeros on the others: added to a sum once
    TOKENS = auto()  # by token ids, in equal parts, the last one filled up with zeros


BLOCK_CUTS: Mapping[str, Cut] = {
    **{f"self_attn.q_proj.{kind}": Cut.ROWS for kind in ("weight", "bias")},
    **{f"self_attn.{name}_proj.{kind}": Cut.KEY_VALUE_ROWS for name in "kv" for kind in ("weight", "bias")},
    "self_attn.o_proj.weight": Cut.COLUMNS,
    "self_attn.o_proj.bias": Cut.ONCE,
    "mlp.gate_proj.weight": Cut.ROWS,
    "mlp.up_proj.weight": Cut.ROWS,
    "mlp.down_proj.weight": Cut.COLUMNS,
    "lm_head.weight": Cut.TOKENS,
}


def allowed_sizes(config: ModelConfig) -> list[int]:
    """How many ranks can share a model of this shape."""
    return [size for size in range(1, config.num_heads + 1) if _divides(config, size)]


def check_sizes(config: ModelConfig, size: int, source: str) -> None:
    """Raise ConfigError, with the numbers that are allowed, unless so many ranks can share the model."""
    if not _divides(config, size):
        raise ConfigError(
            f"{source} cannot be shared by {size} devices: it has {config.num_heads} heads, {config.num_kv_heads} K/V "
            f"heads and an MLP of {config.mlp_size:,}, which {', '.join(map(str, allowed_sizes(config)))} divide"
        )


def share_of(config: ModelConfig, size: int) -> ModelConfig:
    """The shape of one rank's part."""
    return replace(
        config,
        num_heads=config.num_heads // size,
        num_kv_heads=max(1, config.num_kv_heads // size),
        mlp_size=config.mlp_size // size,
    )


def parameters_of_share(config: ModelConfig, size: int) -> int:
    """Weights of one rank, whose part has this shape: its embedding is whole, its output head a part also where both
    are one tensor.
    """
    return config.num_non_embedding_parameters + config.hidden_size * (
        config.vocab_size + rows_each(config.vocab_size, size)
    )


def shared(
    config: ModelConfig, weights: Weights, cuts: Mapping[str, Cut] | None, group: Group, source: str
) -> tuple[ModelConfig, Weights]:
    """This rank's config and tensors. Raises ConfigError where the model cannot be shared by so many."""
    if cuts is None:
        raise ConfigError(
            f"{source} is a {config.model_type}, whose family does not say how its tensors are shared (`Family.cuts`): "
            "give the target one device"
        )
    check_sizes(config, group.size, source)
    return share_of(config, group.size), SharedWeights(weights, cuts, group, config.num_kv_heads)


class SharedWeights:
    """The same names; each tensor is this rank's part."""

    def __init__(self, weights: Weights, cuts: Mapping[str, Cut], group: Group, num_kv_heads: int) -> None:
        self._weights, self._cuts, self._num_kv_heads = weights, cuts, num_kv_heads
        self._rank, self._size = group.rank, group.size

    def names(self) -> set[str]:
        """Names of all tensors."""
        return self._weights.names()

    def place(self, name: str) -> str:
        """Where the whole tensor lies."""
        return f"{self._weights.place(name)}, rank {self._rank} of {self._size}"

    def read(self, name: str) -> torch.Tensor:
        """The part of one tensor."""
        cut = next((cut for end, cut in self._cuts.items() if name.endswith(end)), None)
        if cut is None:
            return self._weights.read(name)
        if cut is Cut.ONCE:
            tensor = self._weights.read(name)
            return tensor if self._rank == 0 else torch.zeros_like(tensor)
        if cut is Cut.TOKENS:
            return self._tokens(name)
        of = self._num_kv_heads if cut is Cut.KEY_VALUE_ROWS else self._size
        return self._weights.read_part(name, 1 if cut is Cut.COLUMNS else 0, partial(self._equal_part, of))

    def read_part(self, name: str, dim: int, choose: Choose) -> torch.Tensor:
        """A part of the part."""
        tensor = self.read(name)
        start, stop = choose(tensor.shape[dim])
        return tensor.narrow(dim, start, stop - start)

    def _equal_part(self, of: int, size: int) -> tuple[int, int]:
        """Of `size` places in `of` units: this rank's, or the one that it has in common with others."""
        each = size // of
        first = self._rank * of // self._size
        return first * each, (first + max(1, of // self._size)) * each

    def _tokens(self, name: str) -> torch.Tensor:
        count = 0

        def choose(vocab: int) -> tuple[int, int]:
            nonlocal count
            count = rows_each(vocab, self._size)
            return min(vocab, self._rank * count), min(vocab, (self._rank + 1) * count)

        part = self._weights.read_part(name, 0, choose)
        return part if len(part) == count else F.pad(part, (0, 0, 0, count - len(part)))


def _divides(config: ModelConfig, size: int) -> bool:
    few_kv_heads = config.num_kv_heads % size == 0 or size % config.num_kv_heads == 0
    return config.num_heads % size == 0 and few_kv_heads and config.mlp_size % size == 0
