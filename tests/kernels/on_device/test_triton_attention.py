"""Attention against float64: around the ends of blocks and splits, trees, empty rows, extremes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_tunings import (
    EARLY,
    MANY_PROGRAMS,
    ONE_PROGRAM,
    SMALL,
    SOME_PROGRAMS,
    TUNINGS,
    attend,
    budgeted,
)
from kernel_cases import (
    BLOCK,
    DTYPES,
    INTERPRETED,
    attention_case,
    attention_in_float64,
    rotary_table,
    same_bits,
)

from ssd_lab.errors import ConfigError
from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.triton_ops.attention_plan import plan_split_attention
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionTuning
from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels

LAYERED, SOME = [MANY_PROGRAMS, SOME_PROGRAMS], TUNINGS[:: 4 if INTERPRETED else 1]
if not INTERPRETED:  # which takes seconds for each of these
    LAYERED += [ONE_PROGRAM, EARLY]


@pytest.mark.grid(one_of=7)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "heads", [HeadLayout(2, 2, 32), HeadLayout(8, 2, 64), HeadLayout(8, 1, 128), HeadLayout(6, 2, 80)]
)
@pytest.mark.parametrize("depth", [0, 3])
def test_attention_is_that_of_float64(device: torch.device, dtype: torch.dtype, heads: HeadLayout, depth: int) -> None:
    """Prefixes around the ends of blocks and splits, more rows than a tile holds, several sequences."""
    prefixes = [[1, 2, 16, 17, 127], [128, 129, 130, 131, 255], [5, 300, 7, 256, 257]]
    if INTERPRETED:
        prefixes = [[1, 127], [17, 128], [129, 257]]
    case = attention_case(heads, dtype, prefixes, depth=depth, seed=heads.head_dim)
    budgeted(attend(TritonKernels(MANY_PROGRAMS), case, device), case)


@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("depth", [0, 2])
def test_every_way_of_cutting_is_right(device: torch.device, tuning: AttentionTuning, depth: int) -> None:
    case = attention_case(SMALL, torch.float32, [[1, 40, 129, 200, 3], [300, 2, 255, 256, 0]], depth=depth, seed=5)
    budgeted(attend(TritonKernels(tuning), case, device), case)


@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("heads", [HeadLayout(32, 1, 32), HeadLayout(17, 1, 32), HeadLayout(7, 1, 32)])
def test_groups_that_do_not_fit_sixteen(device: torch.device, heads: HeadLayout, rows: int) -> None:
    case = attention_case(heads, torch.float32, [[50 + row for row in range(rows)]], depth=2)
    budgeted(attend(TritonKernels(), case, device), case)


def test_a_row_that_sees_nothing_gives_zeros(device: torch.device) -> None:
    """Its neighbours get what they get without it."""
    for depth in (0, 2):
        case = attention_case(SMALL, torch.float32, [[0, 20, 0, 30], [0, 0, 0, 0]], depth=depth)
        if case.ancestors is not None:
            case.ancestors[:, 0], case.ancestors[1] = -1, -1
        for tuning in SOME:
            result = attend(TritonKernels(tuning), case, device).cpu()
            assert torch.equal(result[0, 0], torch.zeros(128)) and torch.equal(result[1], torch.zeros(4, 128))
            budgeted(result, case)


def test_layers_share_a_plan(device: torch.device) -> None:
    """What one layer leaves in the working memory does not reach the next."""
    case = attention_case(SMALL, torch.float32, [[300, 40, 257], [2, 129, 130]], depth=2, seed=8).to(device)
    caches = [case.cache, case.cache.flip(0).nan_to_num(), case.cache]
    for tuning in LAYERED:
        kernels = TritonKernels(tuning)
        plan = kernels.plan(case.step(), BLOCK, SMALL, rotary_table(32, device), torch.float32)
        first, other, again = [kernels.attention(case.flat_queries(), cache, plan) for cache in caches]
        assert same_bits(first, again) and not torch.equal(first, other)


def test_slices_of_longer_runs_are_read_where_they_are(device: torch.device) -> None:
    case = attention_case(SMALL, torch.float32, [[30, 31, 32, 33], [40, 41, 42, 43]], depth=4, seed=3)
    assert case.ancestors is not None
    sliced = replace(
        case,
        queries=case.queries[:, 1:3],
        prefixes=case.prefixes[:, 1:3],
        ancestors=case.ancestors[:, 1:3, :2],
        tables=torch.cat([case.tables, case.tables], 1)[:, : case.tables.shape[1]],
    )
    assert not sliced.prefixes.is_contiguous() and not sliced.tables.is_contiguous()
    budgeted(attend(TritonKernels(), sliced, device), sliced)


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered")  # the interpreter's maximum of that row
def test_a_row_with_a_value_that_is_no_number_spoils_no_other_row(device: torch.device) -> None:
    case = attention_case(SMALL, torch.float32, [[20, 20, 20]], depth=2, seed=4)
    assert case.ancestors is not None
    case.ancestors[0, :, 0] = torch.tensor([20, 21, 22])
    case.cache[case.tables[0, 21 // BLOCK] * BLOCK + 21 % BLOCK] = torch.nan
    result = attend(TritonKernels(), case, device)[0].cpu()
    assert result[1].isnan().all()
    case.cache[case.tables[0, 21 // BLOCK] * BLOCK + 21 % BLOCK] = 0.0
    assert same_bits(result[[0, 2]], attend(TritonKernels(), case, device)[0, [0, 2]].cpu())


def test_scores_far_apart_neither_overflow_nor_vanish(device: torch.device) -> None:
    """Scores of thousands, in splits whose references differ by more than float32's exponents reach."""
    case = attention_case(SMALL, torch.float32, [[300, 301]], seed=6)
    case.queries.mul_(300)
    expected = attention_in_float64(case)
    for tuning in (ONE_PROGRAM, MANY_PROGRAMS):
        result = attend(TritonKernels(tuning), case, device)[0].cpu()
        torch.testing.assert_close(result.double(), expected, atol=2e-3, rtol=1e-3)
    assert same_bits(
        attend(TritonKernels(ONE_PROGRAM), case, device), attend(TritonKernels(MANY_PROGRAMS), case, device)
    )


def test_working_memory_is_bounded() -> None:
    case = attention_case(SMALL, torch.bfloat16, [[4] * 64], seed=0)
    bounded = plan_split_attention(case.step(131072), BLOCK, SMALL, torch.bfloat16, AttentionTuning(partials_mib=8))
    assert bounded.programs == 1 and bounded.summed is None
    free = plan_split_attention(case.step(131072), BLOCK, SMALL, torch.bfloat16, AttentionTuning())
    assert free.summed is not None and free.summed.numel() * 4 <= 256 << 20


@pytest.mark.parametrize("split", [0, 8, 100])
def test_a_split_that_no_product_has_is_refused(split: int) -> None:
    with pytest.raises(ConfigError, match="power of 2"):
        AttentionTuning(split=split)


def test_an_unrolling_that_is_no_power_of_2_is_refused() -> None:
    with pytest.raises(ConfigError, match="unroll is 3"):
        AttentionTuning(unroll=3)
