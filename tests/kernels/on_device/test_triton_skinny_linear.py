"""Products of few rows against float64, fused with what stands around them; a row's bits are its own."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import random, same_bits, within_budget

from ssd_lab.errors import ConfigError
from ssd_lab.kernels.triton_ops.skinny_linear import LinearTuning, skinny_linear

SMALL_BLOCKS = LinearTuning(block_n=16, block_k=32)
SPLIT = LinearTuning(block_n=32, block_k=64, split_k=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tuning", [SMALL_BLOCKS, SPLIT])
@pytest.mark.parametrize("form", ["plain", "residual", "gated", "normed", "normed_gated"])
def test_skinny_linear(device: torch.device, dtype: torch.dtype, tuning: LinearTuning, form: str) -> None:
    rows, size, outputs = 5, 200, 72
    x, weight = random((rows, size), 0, dtype), random((outputs, size), 1, dtype) / 14
    residual = random((rows, outputs), 2, dtype) if form == "residual" else None
    norm_weight = 1 + 0.1 * random((size,), 3, dtype) if "normed" in form else None
    scale = x.float().square().mean(-1).add(1e-5).rsqrt() if "normed" in form else None

    def plain(dtype: torch.dtype) -> torch.Tensor:
        inputs = x.to(dtype)
        if norm_weight is not None and scale is not None:
            inputs = (x.double() * scale.double()[:, None] * norm_weight.double()).to(dtype)
        result = inputs @ weight.to(dtype).T
        if "gated" in form:
            gate, up = result.chunk(2, -1)
            result = torch.nn.functional.silu(gate) * up
        return result if residual is None else result + residual.to(dtype)

    def moved(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.to(device)

    result = skinny_linear(
        x.to(device), weight.to(device), residual=moved(residual), gated="gated" in form, norm_scale=moved(scale),
        norm_weight=moved(norm_weight), tuning=tuning,
    )  # fmt: skip
    within_budget(result, plain(torch.float64), plain(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tuning", [SMALL_BLOCKS, SPLIT])
def test_bits_of_a_row_do_not_depend_on_the_rows_beside_it(
    device: torch.device, dtype: torch.dtype, tuning: LinearTuning
) -> None:
    x, weight = random((16, 200), 0, dtype).to(device), random((72, 200), 1, dtype).to(device)
    together = skinny_linear(x, weight, tuning=tuning)
    for first, count in ((0, 1), (15, 1), (3, 4), (7, 9)):
        chosen = slice(first, first + count)
        assert same_bits(skinny_linear(x[chosen].clone(), weight, tuning=tuning), together[chosen])


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    weight = torch.zeros(32, 16, device=device)
    with pytest.raises(ConfigError, match="17 rows: at most 16"):
        skinny_linear(torch.zeros(17, 16, device=device), weight)
    x = torch.zeros(1, 16, device=device)
    with pytest.raises(ConfigError, match="gated and a residual"):
        skinny_linear(x, weight, gated=True, residual=x)
