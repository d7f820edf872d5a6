"""Rotary embeddings against complex multiplication in float64, and against transformers' scaled frequencies."""

from __future__ import annotations

import pytest
import torch

from ssd_lab.errors import ModelLoadError
from ssd_lab.kernels.rope import RotaryTable, inverse_frequencies

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("size", [8, 64, 128])
def test_rotation_is_multiplication_by_a_unit_complex_number(size: int) -> None:
    table = RotaryTable(size, 10000.0, None, 600, torch.device("cpu"))
    positions = torch.tensor([0, 1, 17, 599])
    heads = torch.randn(4, 3, size, generator=torch.Generator().manual_seed(0))
    rotated = table.rotate(heads, *table.at(positions, torch.float32))
    pairs = torch.complex(heads[..., : size // 2].double(), heads[..., size // 2 :].double())
    angles = positions[:, None].double() * 10000.0 ** -(torch.arange(0, size, 2).double() / size)
    expected = pairs * torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    torch.testing.assert_close(rotated.double(), torch.cat([expected.real, expected.imag], -1), atol=2e-4, rtol=0)


def test_llama3_scaling_is_that_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=512, num_attention_heads=8, rope_theta=5e5, rope_scaling=LLAMA3, max_position_embeddings=131072
    )
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    torch.testing.assert_close(inverse_frequencies(64, 5e5, LLAMA3), expected, rtol=1e-6, atol=0)


def test_linear_scaling_divides_the_frequencies() -> None:
    plain, scaled = (inverse_frequencies(64, 1e4, s) for s in (None, {"rope_type": "linear", "factor": 4.0}))
    assert torch.equal(scaled, plain / 4)


def test_a_scaling_without_its_numbers_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="'llama3' needs the entry 'original_max"):
        inverse_frequencies(64, 1e4, {"rope_type": "llama3"})
