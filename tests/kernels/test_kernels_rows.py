"""Operations that work row by row, against float64, and bit for bit whatever the number of rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from ssd_lab.kernels.norm import RmsNorm, rms_norm
from ssd_lab.kernels.torch_kernels import TorchKernels

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [16, 512, 576])
@pytest.mark.parametrize("form", [lambda w: partial(rms_norm, weight=w, eps=1e-5), lambda w: RmsNorm(w, 1e-5)])
def test_norm(dtype: torch.dtype, size: int, form: Callable[[torch.Tensor], Callable]) -> None:
    generator = torch.Generator().manual_seed(size)
    rows = (3 * torch.randn(64, size, generator=generator)).to(dtype)
    weight = torch.randn(size, generator=generator).to(dtype)
    wide = rows.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    norm = form(weight)
    result = norm(rows)
    torch.testing.assert_close(result.double(), expected, atol=TOLERANCE[dtype], rtol=1e-2)
    for count in (1, 2, 7, 33):
        assert torch.equal(norm(rows[:count]), result[:count])
    assert norm(torch.zeros(1, size, dtype=dtype)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [16, 1152, 1536])
def test_gated_activation(dtype: torch.dtype, size: int) -> None:
    rows = torch.randn(64, 2 * size, generator=torch.Generator().manual_seed(size)).to(dtype)
    gate, up = rows.double().chunk(2, -1)
    gated_silu = TorchKernels().gated_silu
    result = gated_silu(rows)
    torch.testing.assert_close(result.double(), gate * gate.sigmoid() * up, atol=TOLERANCE[dtype], rtol=1e-2)
    for count in (1, 2, 7, 33):
        assert torch.equal(gated_silu(rows[:count]), result[:count])
