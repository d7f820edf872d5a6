"""Attention bit for bit however a row is computed: the equalities that exact decoding rests on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_tunings import (
    EARLY_SOME,
    GATHERED,
    MANY_LANES,
    MANY_PROGRAMS,
    ONE_PROGRAM,
    OTHER_SPLITS,
    SMALL,
    TUNINGS,
    attend,
    budgeted,
)
from kernel_cases import BLOCK, INTERPRETED, AttentionCase, attention_case, same_bits

from ssd_lab.kernels.triton_ops.attention_tuning import AttentionTuning
from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels

OTHERS = TUNINGS[1 :: 3 if INTERPRETED else 1]  # the interpreter takes seconds for each


@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("depth", [0, 3])
def test_bits_do_not_depend_on_how_the_splits_are_shared_out(
    device: torch.device, dtype: torch.dtype, depth: int
) -> None:
    """Nor on who adds them (the program that made them, a second launch, the last program of a tile), nor on the
    bound of the context, nor on what is read early.
    """
    case = attention_case(SMALL, dtype, [[250, 256, 257, 384, 385], [3, 130, 0, 128, 300]], depth=depth, seed=1)
    expected = attend(TritonKernels(ONE_PROGRAM), case, device)
    for tuning in OTHERS:
        assert same_bits(attend(TritonKernels(tuning), case, device, context=700), expected), tuning


@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize("tunings", OTHER_SPLITS)
def test_bits_with_other_splits_are_again_the_same_whoever_adds(
    device: torch.device, tunings: list[AttentionTuning], depth: int
) -> None:
    case = attention_case(SMALL, torch.float32, [[62, 64, 65], [3, 32, 150]], depth=depth, seed=1)
    results = [attend(TritonKernels(tuning), case, device) for tuning in tunings]
    budgeted(results[0], case)
    assert same_bits(results[0], results[1]) and same_bits(results[0], results[2])
    assert not same_bits(results[0], attend(TritonKernels(ONE_PROGRAM), case, device)), "sums were not cut elsewhere"


def test_splits_whose_references_are_far_apart_are_added_alike(device: torch.device) -> None:
    """One split outweighs the others by more than float32's exponents reach: rescaling may only change exponents."""
    case = attention_case(SMALL, torch.float32, [[300, 301]], seed=6)
    case.queries.mul_(300)
    expected = attend(TritonKernels(ONE_PROGRAM), case, device)
    for tuning in OTHERS:
        assert same_bits(attend(TritonKernels(tuning), case, device), expected), tuning


@pytest.mark.grid(one_of=2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_of_a_row_do_not_depend_on_rows_or_sequences_beside_it(device: torch.device, dtype: torch.dtype) -> None:
    prefixes = [[120 + row for row in range(9)], [250 + 3 * row for row in range(9)], [1] * 9]
    case = attention_case(SMALL, dtype, prefixes, seed=2)
    expected = attend(TritonKernels(MANY_PROGRAMS), case, device)
    parts: list[tuple[list[int], list[int]]] = [([0, 1], [8]), ([1], [2, 5]), ([2, 1, 0], [8, 7, 6])]
    if not INTERPRETED:
        parts += [([1], [0]), ([1], [0, 1, 2, 3, 4, 5])]
    for sequences, rows in parts:
        picked = replace(
            case,
            queries=case.queries[sequences][:, rows],
            tables=case.tables[sequences],
            prefixes=case.prefixes[sequences][:, rows],
        )
        for tuning in (MANY_LANES, ONE_PROGRAM if len(rows) > 1 else MANY_PROGRAMS):
            result = attend(TritonKernels(tuning), picked, device)
            assert same_bits(result, expected[sequences][:, rows]), (sequences, rows, tuning)


def laid_out_as_chain(case: AttentionCase, row: int) -> AttentionCase:
    """The row's keys, the prefix and then its ancestors, at consecutive positions of a cache of their own."""
    assert case.ancestors is not None
    own = [place for place in case.ancestors[0, row].tolist() if place >= 0]
    places = torch.tensor([*range(int(case.prefixes[0, row])), *own])
    slots = case.tables[0, places // BLOCK] * BLOCK + places % BLOCK
    cache = torch.full((BLOCK + -(-len(places) // BLOCK) * BLOCK, *case.cache.shape[1:]), torch.nan)
    cache = cache.to(case.cache.dtype)
    cache[BLOCK : BLOCK + len(places)] = case.cache[slots]
    return AttentionCase(
        heads=case.heads,
        queries=case.queries[:, row : row + 1],
        cache=cache,
        tables=torch.arange(1, cache.shape[0] // BLOCK)[None],
        prefixes=torch.tensor([[len(places)]]),
        ancestors=None,
        context=len(places),
    )


@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prefix", [1, 120, 126, 128, 260])
def test_a_row_of_a_tree_has_the_bits_of_the_chain_it_stands_for(
    device: torch.device, dtype: torch.dtype, prefix: int
) -> None:
    """Its ancestors cross the end of a split (31, 32 and 127, 128, 129 keys), and rows of a tile differ in prefix."""
    prefixes = [[prefix + offset for offset in (0, 1, 2, 3, 1)]]
    case = attention_case(SMALL, dtype, prefixes, depth=5, seed=prefix)
    chains = [attend(TritonKernels(MANY_PROGRAMS), laid_out_as_chain(case, row), device) for row in range(5)]
    for tuning in (ONE_PROGRAM, GATHERED, EARLY_SOME, MANY_LANES):
        assert same_bits(attend(TritonKernels(tuning), case, device), torch.cat(chains, 1)), tuning
