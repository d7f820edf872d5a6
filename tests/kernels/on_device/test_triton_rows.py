"""Norm, activation, rotation and writing: against float64, and bit for bit whatever is computed beside a row."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import BLOCK, DTYPES, error, random, rotary_table, same_bits, within_budget

from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.interface import HeadLayout, Kernels
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.step_input import StepInput

LAYOUTS = [HeadLayout(4, 4, 32), HeadLayout(8, 2, 64), HeadLayout(8, 1, 128), HeadLayout(9, 3, 80)]


@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [16, 576, 1000, 4096])
@pytest.mark.parametrize("with_delta", [False, True])
def test_add_rms_norm(kernels: Kernels, device: torch.device, dtype: torch.dtype, size: int, with_delta: bool) -> None:
    hidden, delta = 3 * random((5, size), 0, dtype), random((5, size), 1, dtype) if with_delta else None
    norm = RmsNorm(random((size,), 2, dtype).to(device), 1e-5)
    total, normed = kernels.add_rms_norm(hidden.to(device), None if delta is None else delta.to(device), norm)
    summed = hidden if delta is None else hidden + delta
    within_budget(total, hidden.double() if delta is None else hidden.double() + delta.double(), summed)
    wide = total.double().cpu()  # the norm is that of the rounded sum
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double().cpu()
    within_budget(normed, expected, expected.to(dtype))
    assert same_bits(kernels.add_rms_norm(total, None, norm)[1], normed)
    if dtype != torch.bfloat16 or device.type == "cuda":  # the interpreter does not round bfloat16
        assert same_bits(total.cpu(), summed)


def test_norm_of_zeros_and_of_large_rows(kernels: Kernels, device: torch.device) -> None:
    norm = RmsNorm(torch.ones(64, device=device), 1e-5)
    rows = torch.stack([torch.zeros(64), torch.full((64,), 1e18)]).to(device)
    normed = kernels.add_rms_norm(rows, None, norm)[1].cpu()
    assert torch.equal(normed[0], torch.zeros(64))
    torch.testing.assert_close(normed[1], torch.ones(64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [16, 1000, 2048])
def test_gated_silu(kernels: Kernels, device: torch.device, dtype: torch.dtype, size: int) -> None:
    gate_up = 3 * random((5, 2 * size), 0, dtype)
    gate, up = gate_up.double().chunk(2, -1)
    plain = torch.nn.functional.silu(gate_up[:, :size]) * gate_up[:, size:]
    within_budget(kernels.gated_silu(gate_up.to(device)), gate * gate.sigmoid() * up, plain)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # numpy's
def test_gated_silu_of_extremes(kernels: Kernels, device: torch.device) -> None:
    gate = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4])
    result = kernels.gated_silu(torch.cat([gate, torch.ones(5)])[None].to(device))[0].cpu()
    torch.testing.assert_close(result, torch.tensor([0.0, 0.0, 0.0, 100.0, 1e4]), atol=1e-30, rtol=1e-6)


def rotated_in_float64(
    heads: torch.Tensor, positions: torch.Tensor, norm: tuple[torch.Tensor, float] | None
) -> torch.Tensor:
    """Heads `[n, heads, head_dim]` as complex numbers, turned by position * frequency."""
    wide = heads.double()
    if norm is not None:
        wide = wide / (wide.square().mean(-1, keepdim=True) + norm[1]).sqrt() * norm[0].double()
    size = heads.shape[-1]
    pairs = torch.complex(wide[..., : size // 2], wide[..., size // 2 :])
    frequencies = 10000.0 ** -(torch.arange(0, size, 2).double() / size)
    angles = positions.clamp(0, 299)[:, None].double() * frequencies
    turned = pairs * torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    return torch.cat([turned.real, turned.imag], -1)


def step_at(positions: torch.Tensor, slots: torch.Tensor) -> StepInput:
    ones = torch.ones(1, len(positions), dtype=torch.int64, device=positions.device)
    return StepInput(ones, positions[None], slots[None], ones[:, :1], ones, 1)


@pytest.mark.grid(one_of=11)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("with_norms", [False, True])
@pytest.mark.parametrize(
    ("name", "index_dtype"), [("torch", torch.int64), ("triton", torch.int64), ("triton", torch.int32)]
)
def test_rope_and_write(
    device: torch.device, dtype: torch.dtype, layout: HeadLayout, with_norms: bool, name: str, index_dtype: torch.dtype
) -> None:
    kernels = choose_kernels(device, name)
    heads, kv_heads, size = layout.num_heads, layout.num_kv_heads, layout.head_dim
    positions = torch.tensor([0, 1, 17, 299, 400]).to(index_dtype)  # 400 is beyond the table: the nearest is taken
    slots = torch.tensor([3 * BLOCK + 1, 40, 17, 2 * BLOCK, 33]).to(index_dtype)
    qkv = random((5, (heads + 2 * kv_heads) * size), 0, dtype)
    norms = [RmsNorm((1 + 0.1 * random((size,), seed)).to(dtype).to(device), 1e-6) for seed in (1, 2)]
    cache = torch.full((4 * BLOCK, 2 * kv_heads, size), -7.0, dtype=dtype, device=device)
    table = rotary_table(size, device)
    plan = kernels.plan(step_at(positions.to(device), slots.to(device)), BLOCK, layout, table, dtype)
    queries = kernels.rope_and_write(qkv.to(device), cache, plan, *(norms if with_norms else []))

    q, k, v = qkv.view(5, -1, size).split([heads, kv_heads, kv_heads], 1)
    weights = [(norm.weight.cpu(), norm.eps) if with_norms else None for norm in norms]
    long = positions.long()
    expected_queries, expected_keys = (rotated_in_float64(x, long, w) for x, w in zip((q, k), weights, strict=True))
    # in float32 the table's angles are rounded too
    slack = 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    assert queries.dtype == dtype
    assert error(queries, expected_queries) < slack
    written = cache.cpu()
    assert error(written[slots.long(), :kv_heads], expected_keys) < slack
    assert torch.equal(written[slots.long(), kv_heads:], v)
    untouched = torch.ones(4 * BLOCK, dtype=torch.bool)
    untouched[slots.long()] = False
    assert (written[untouched] == -7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_of_a_row_do_not_depend_on_the_rows_beside_it(device: torch.device, dtype: torch.dtype) -> None:
    kernels = choose_kernels(device, "triton")
    norm = RmsNorm(random((200,), 2, dtype).to(device), 1e-5)
    hidden, delta, layout = random((9, 200), 0, dtype).to(device), random((9, 200), 1, dtype).to(device), LAYOUTS[1]
    qkv = random((9, 12 * 64), 3, dtype).to(device)
    positions, slots = torch.arange(9, device=device) * 20, torch.arange(9, device=device) + BLOCK
    table = rotary_table(64, device)

    def all_of(chosen: slice) -> list[torch.Tensor]:
        cache = torch.zeros(4 * BLOCK, 4, 64, dtype=dtype, device=device)
        plan = kernels.plan(step_at(positions[chosen], slots[chosen]), BLOCK, layout, table, dtype)
        queries = kernels.rope_and_write(qkv[chosen], cache, plan)
        both = kernels.add_rms_norm(hidden[chosen], delta[chosen], norm)
        return [*both, kernels.gated_silu(hidden[chosen]), queries, cache[slots[chosen]]]

    for first, count in ((0, 1), (4, 1), (8, 1), (3, 2), (2, 7)):
        for alone, together in zip(all_of(slice(first, first + count)), all_of(slice(0, 9)), strict=True):
            assert same_bits(alone, together[first : first + count])
