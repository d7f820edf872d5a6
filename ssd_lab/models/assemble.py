"""Make a decoder from named tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssd_lab.errors import ModelLoadError
from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.row_padding import RowPadding
from ssd_lab.kernels.row_probe import make_row_invariant
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import Decoder, LayerWeights
from ssd_lab.models.files.weights import TensorReader, Weights

IGNORED = ("rotary_emb.inv_freq",)  # tables of old checkpoints


def assemble(
    config: ModelConfig,
    weights: Weights,
    *,
    dtype: torch.dtype,
    device: torch.device,
    source: str,
    bitwise: bool = True,
    pack: bool = True,
    kernels: str = "auto",
    num_tokens: int | None = None,
    on_layer: Callable[[], None] = lambda: None,
) -> Decoder:
    """A decoder of this shape. Raises ModelLoadError for missing, left-over or misshapen tensors.

    bitwise: pad rows so that results do not depend on their number (see `kernels/row_padding.py`). pack: see `Linear`.
    kernels: see `choose_kernels`. num_tokens: see `Decoder`.
    """
    reader = TensorReader(weights, dtype, device, source)
    chosen = choose_kernels(device, kernels)

    def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return Linear(weight, bias, pack=pack, few_rows=chosen.few_rows(weight, bias))

    hidden, vocab = config.hidden_size, config.vocab_size
    embedding = reader.take("model.embed_tokens.weight", vocab, hidden)
    layers = []
    for index in range(config.num_layers):
        layers.append(_layer(reader, config, f"model.layers.{index}.", linear))
        on_layer()
    head = _tied(reader, embedding, source) if config.tie_embeddings else reader.take("lm_head.weight", vocab, hidden)
    decoder = Decoder(
        config,
        embedding,
        layers,
        RmsNorm(reader.take("model.norm.weight", hidden), config.rms_eps),
        linear(head),
        RowPadding(),
        chosen,
        num_tokens,
    )
    reader.check_all_used(IGNORED)
    if bitwise:
        decoder.row_padding = make_row_invariant(decoder.linears())
    return decoder


def _tied(reader: TensorReader, embedding: torch.Tensor, source: str) -> torch.Tensor:
    """The embedding, which is the output head too. Raises ModelLoadError where the checkpoint has another head."""
    if "lm_head.weight" in reader and not torch.equal(reader.take("lm_head.weight", *embedding.shape), embedding):
        raise ModelLoadError(
            f"{source}: the config says that the output head is the embedding (tie_word_embeddings), and "
            "lm_head.weight is another: set tie_word_embeddings to false in its config.json to use that, or delete the "
            "tensor"
        )
    return embedding


def _layer(reader: TensorReader, config: ModelConfig, prefix: str, linear: Callable[..., Linear]) -> LayerWeights:
    hidden, size = config.hidden_size, config.head_dim
    queries, keys = config.num_heads * size, config.num_kv_heads * size
    qkv = [f"{prefix}self_attn.{name}_proj" for name in "qkv"]
    gate_up = [f"{prefix}mlp.{name}_proj.weight" for name in ("gate", "up")]
    bias = output_bias = None
    if config.attention_bias:
        bias = reader.take_joined([f"{name}.bias" for name in qkv], [(queries,), (keys,), (keys,)])
        output_bias = reader.take(f"{prefix}self_attn.o_proj.bias", hidden)

    def norm(name: str, length: int) -> RmsNorm:
        return RmsNorm(reader.take(f"{prefix}{name}.weight", length), config.rms_eps)

    shapes: list[tuple[int, ...]] = [(queries, hidden), (keys, hidden), (keys, hidden)]
    return LayerWeights(
        input_norm=norm("input_layernorm", hidden),
        qkv=linear(reader.take_joined([f"{name}.weight" for name in qkv], shapes), bias),
        output=linear(reader.take(f"{prefix}self_attn.o_proj.weight", hidden, queries), output_bias),
        mlp_norm=norm("post_attention_layernorm", hidden),
        gate_up=linear(reader.take_joined(gate_up, [(config.mlp_size, hidden)] * 2)),
        down=linear(reader.take(f"{prefix}mlp.down_proj.weight", hidden, config.mlp_size)),
        query_norm=norm("self_attn.q_norm", size) if config.qk_norm else None,
        key_norm=norm("self_attn.k_norm", size) if config.qk_norm else None,
    )
