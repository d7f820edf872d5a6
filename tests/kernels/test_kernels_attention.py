"""Paged attention against a slow float64 twin, and bit for bit however a row is computed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_lab.kernels.attention import paged_attention, plan_attention, write_kv
from ssd_lab.kernels.step_input import StepInput

BLOCK = 16


def step_of(
    tables: torch.Tensor, prefixes: torch.Tensor, context: int, ancestors: torch.Tensor | None = None
) -> StepInput:
    unused = torch.zeros_like(prefixes)
    return StepInput(unused, unused, unused, tables, prefixes, context, ancestors)


def twin(queries: torch.Tensor, cache: torch.Tensor, step: StepInput) -> torch.Tensor:
    """One softmax at a time, in float64, over the positions that a row may see."""
    batch, rows = step.prefix_lengths.shape
    heads, kv_heads = queries.shape[1], cache.shape[1] // 2
    result = torch.zeros(batch * rows, heads, queries.shape[2], dtype=torch.float64)
    for sequence in range(batch):
        for row in range(rows):
            seen = list(range(int(step.prefix_lengths[sequence, row])))
            if step.ancestors is not None:
                seen += [position for position in step.ancestors[sequence, row].tolist() if position >= 0]
            table = step.block_tables[sequence]
            slots = [int(table[position // BLOCK]) * BLOCK + position % BLOCK for position in seen]
            for head in range(heads):
                shared = head // (heads // kv_heads)
                keys, values = cache[slots, shared].double(), cache[slots, kv_heads + shared].double()
                query = queries[sequence * rows + row, head].double()
                result[sequence * rows + row, head] = torch.softmax(keys @ query / query.shape[0] ** 0.5, 0) @ values
    return result.flatten(1)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1 << 30))
def test_attention_is_that_of_the_twin(data: st.DataObject, seed: int) -> None:
    batch, rows, context = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 300))
    kv_heads, group, size = data.draw(st.sampled_from([(2, 4, 16), (1, 1, 32), (3, 3, 8)]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    generator = torch.Generator().manual_seed(seed)
    blocks = -(-context // BLOCK)
    tables = (torch.randperm(batch * blocks, generator=generator) + 1).view(batch, blocks)
    cache = torch.randn((batch * blocks + 1) * BLOCK, 2 * kv_heads, size, generator=generator).to(dtype)
    queries = torch.randn(batch * rows, kv_heads * group, size, generator=generator).to(dtype)
    prefixes = torch.randint(1, context + 1, (batch, rows), generator=generator)
    ancestors = None
    if context > 4 and data.draw(st.booleans()):  # some of them padding; others behind the prefix
        prefixes = prefixes.clamp(max=context - 4)
        ancestors = torch.randint(context - 4, context, (batch, rows, 1), generator=generator)
        ancestors = torch.where(torch.rand(batch, rows, 1, generator=generator) < 0.4, -1, ancestors)
    step = step_of(tables, prefixes, context, ancestors)
    attended = paged_attention(queries, cache, plan_attention(step, BLOCK, group, dtype))
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(attended.double(), twin(queries, cache, step), atol=tolerance, rtol=0)


def test_written_keys_and_values_stand_in_their_slots() -> None:
    cache, fresh = torch.zeros(4 * BLOCK, 4, 8), torch.randn(2, 4, 8)
    slots = torch.tensor([[BLOCK + 3, 3 * BLOCK]])
    ones = torch.ones(1, 2, dtype=torch.int64)
    plan = plan_attention(StepInput(ones, ones, slots, torch.tensor([[1]]), ones, 1), BLOCK, 2, torch.float32)
    write_kv(cache, fresh, plan)
    assert torch.equal(cache[slots[0]], fresh)
    assert int(cache.any(-1).any(-1).sum()) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_ancestors", [False, True])
def test_a_row_that_sees_nothing_gives_numbers(dtype: torch.dtype, with_ancestors: bool) -> None:
    """Padding rows; and they change nothing for the others."""
    cache, queries = torch.randn(3 * BLOCK, 4, 16).to(dtype), torch.randn(2, 4, 16).to(dtype)
    ancestors = torch.full((1, 2, 1), -1) if with_ancestors else None
    step = step_of(torch.tensor([[1, 2]]), torch.tensor([[0, 20]]), 20, ancestors)
    attended = paged_attention(queries, cache, plan_attention(step, BLOCK, 2, dtype))
    assert attended.isfinite().all()
    assert (attended.double() - twin(queries, cache, step))[1].abs().max() < 3e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("length", "threads", "kv_heads", "group"),
    [(65, 1, 2, 4), (300, 1, 2, 4), (700, 1, 2, 4), (1024, 1, 2, 4), (300, 1, 3, 3), (300, 2, 2, 4)],
)
def test_bits_of_a_row_depend_on_nothing_but_the_row(
    dtype: torch.dtype, length: int, threads: int, kv_heads: int, group: int
) -> None:
    """Neither on other rows, other sequences, nor on how far the keys are padded (lengths 300 and 700 once did)."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(length)
    batch, rows, size, blocks = 4, 64, 64, 1100 // BLOCK
    tables = torch.arange(1, 1 + batch * blocks).view(batch, blocks)
    cache = torch.randn((1 + batch * blocks) * BLOCK, 2 * kv_heads, size, generator=generator).to(dtype)
    queries = torch.randn(batch, rows, kv_heads * group, size, generator=generator).to(dtype)
    prefixes = (length - rows + 1 + torch.arange(rows)).expand(batch, rows)

    def attend(sequences: list[int], picked: list[int], context: int | None = None) -> torch.Tensor:
        seen = prefixes[sequences][:, picked]
        plan = plan_attention(step_of(tables[sequences], seen, context or int(seen.max())), BLOCK, group, dtype)
        chosen = queries[sequences][:, picked].reshape(-1, kv_heads * group, size)
        return paged_attention(chosen, cache, plan).view(len(sequences), len(picked), -1)

    expected = {row: attend([2], [row])[0, 0] for row in (0, 5, 63)}
    for sequences in ([2], [0, 2], [0, 1, 2, 3]):
        for picked in ([0], [5, 63], list(range(8)), list(range(21)), list(range(64))):
            for context in (None, length, 1090):
                result = attend(sequences, picked, context)[sequences.index(2)]
                for row in set(picked) & expected.keys():
                    assert torch.equal(result[picked.index(row)], expected[row]), (sequences, len(picked), context)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prefix", [1, 60, 127, 128, 200])
def test_in_text_order_a_node_has_the_bits_of_its_token_in_a_chain(dtype: torch.dtype, prefix: int) -> None:
    """Ancestors that lie scattered behind the prefix, of two sequences, against the same keys laid out in a row."""
    generator = torch.Generator().manual_seed(prefix)
    kv_heads, group, size, nodes = 2, 3, 16, 7
    paths = torch.tensor([[0, -1, -1], [0, 3, -1], [5, 2, 6], [1, 4, -1]])
    ancestors = torch.where(paths < 0, -1, paths + prefix).repeat(2, 1, 1)
    blocks = -(-(prefix + nodes) // BLOCK)
    tables = 1 + torch.randperm(2 * blocks, generator=generator).view(2, blocks)
    cache = torch.randn((1 + 2 * blocks) * BLOCK, 2 * kv_heads, size, generator=generator).to(dtype)
    queries = torch.randn(2 * len(paths), kv_heads * group, size, generator=generator).to(dtype)
    prefixes = torch.full((2, len(paths)), prefix)
    step = dataclasses.replace(step_of(tables, prefixes, prefix + nodes, ancestors), text_order=True)
    scattered = paged_attention(queries, cache, plan_attention(step, BLOCK, group, dtype))
    for row in range(2 * len(paths)):
        table, path = tables[row // len(paths)], [node for node in paths[row % len(paths)].tolist() if node >= 0]
        chain = cache.clone()
        for place, node in enumerate(path):
            read, write = prefix + node, prefix + place
            chain[table[write // BLOCK] * BLOCK + write % BLOCK] = cache[table[read // BLOCK] * BLOCK + read % BLOCK]
        alone = step_of(table[None], torch.tensor([[prefix + len(path)]]), prefix + len(path))
        expected = paged_attention(queries[row : row + 1], chain, plan_attention(alone, BLOCK, group, dtype))
        assert torch.equal(scattered[row], expected[0])
