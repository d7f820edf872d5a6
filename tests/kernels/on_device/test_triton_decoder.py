"""A whole decoder whose products are Triton's, beside one that computes with the library."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import INTERPRETED, error, same_bits
from testing_models import random_tensors, tiny_config

from ssd_lab.kernels.row_padding import MANY, RowPadding
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning
from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels
from ssd_lab.models import assemble as assembling
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.files.weights import MappingWeights
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.rounds.rows import causal_step_at

IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38]


def tensors_of(config: ModelConfig) -> dict[str, torch.Tensor]:
    tensors = random_tensors(config)
    if config.attention_bias:
        for name in [name for name in tensors if "self_attn" in name]:
            size = tensors[name].shape[0]
            tensors[name.replace("weight", "bias")] = torch.randn(size, generator=torch.Generator().manual_seed(size))
    return tensors


def decoder_of(config: ModelConfig, device: torch.device, dtype: torch.dtype, kernels: str) -> Decoder:
    return assembling.assemble(
        config,
        MappingWeights(tensors_of(config)),
        dtype=dtype,
        device=device,
        source="a test",
        bitwise=not INTERPRETED,  # numpy's sums do depend on the number of rows
        kernels=kernels,
    )


@torch.inference_mode()
def logits_in_pieces(decoder: Decoder, sizes: list[int], device: torch.device) -> torch.Tensor:
    """Logits of IDS, computed as many rows at a time as `sizes` says."""
    cache = PagedKVCache(decoder.config, 3, 16, decoder.embedding.dtype, device)
    pieces, start = [], 0
    for size in sizes:
        tokens = torch.tensor([IDS[start : start + size]], device=device)
        hidden = decoder.forward(causal_step_at(tokens, [start], [[1, 2]], 16), cache)
        pieces.append(decoder.logits(hidden.flatten(0, 1)))
        start += size
    return torch.cat(pieces)


@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize("split_k", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_logits_are_those_of_the_library(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, split_k: int, bias: bool
) -> None:
    config = tiny_config(96, attention_bias=bias)
    tuning = LinearTuning(block_k=64, split_k=split_k)
    tuned = TritonKernels(linear_tuning=lambda out_features, in_features: tuning)
    library = decoder_of(config, device, torch.float32, "torch")
    with monkeypatch.context() as patch:
        patch.setattr(assembling, "choose_kernels", lambda device, name: tuned)
        ours = decoder_of(config, device, torch.float16, "triton")
    expected = logits_in_pieces(library, [len(IDS)], device)
    together = logits_in_pieces(ours, [len(IDS)], device)
    assert together.dtype == torch.float32
    assert error(together, expected.double().cpu()) < 5e-3
    alone = logits_in_pieces(ours, [4, 1, 1, 3, 1], device)
    assert error(alone, expected.double().cpu()) < 5e-3
    if not INTERPRETED:
        assert ours.row_padding == RowPadding(invariant=True, together=MANY)
        assert same_bits(alone, together)
