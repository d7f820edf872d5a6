"""What tests of kernels share: random inputs, an error budget, poisoned memory, and attention in float64."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.kernels.step_input import StepInput

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BLOCK = 16


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers on the CPU, the same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    assert result.isfinite().all(), "not all results are numbers: something was left unwritten"
    return float((result.double().cpu() - expected).norm() / expected.norm())


def within_budget(result: torch.Tensor, expected: torch.Tensor, reference: torch.Tensor) -> None:
    """A kernel may err at most twice as much as `reference` (plain torch in the same dtype) plus half a rounding.

    The interpreter cuts bfloat16 off instead of rounding: twice the error, and on one side.
    """
    unit = torch.finfo(result.dtype).eps
    slack = 4 * unit if INTERPRETED and result.dtype == torch.bfloat16 else unit / 2
    assert result.dtype == reference.dtype
    assert result.shape == reference.shape
    budget = 2 * error(reference, expected.double().cpu()) + slack
    assert error(result, expected.double().cpu()) <= budget


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal as stored: 0 is not -0."""
    assert left.dtype == right.dtype and left.shape == right.shape
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[left.element_size()]
    return torch.equal(left.contiguous().view(whole), right.contiguous().view(whole))


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Whatever is allocated inside holds NaN (or huge integers) until it is written."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = before
        torch.use_deterministic_algorithms(was_deterministic)


@dataclass(frozen=True)
class AttentionCase:
    """Queries of `batch` sequences with `rows` rows each over a cache of random blocks in random order."""

    heads: HeadLayout
    queries: torch.Tensor  # [batch, rows, heads, head_dim]
    cache: torch.Tensor
    tables: torch.Tensor
    prefixes: torch.Tensor  # [batch, rows]
    ancestors: torch.Tensor | None  # [batch, rows, depth]
    context: int

    def step(self, context: int | None = None) -> StepInput:
        """All that attention reads."""
        unused = torch.zeros_like(self.prefixes)
        return StepInput(unused, unused, unused, self.tables, self.prefixes, context or self.context, self.ancestors)

    def flat_queries(self) -> torch.Tensor:
        return self.queries.flatten(0, 1)

    def to(self, device: torch.device) -> AttentionCase:
        ancestors = None if self.ancestors is None else self.ancestors.to(device)
        tensors = (self.queries, self.cache, self.tables, self.prefixes)
        return AttentionCase(self.heads, *(t.to(device) for t in tensors), ancestors, self.context)


def attention_case(
    heads: HeadLayout,
    dtype: torch.dtype,
    prefixes: list[list[int]],
    *,
    depth: int = 0,
    seed: int = 0,
    context: int | None = None,
) -> AttentionCase:
    """Rows with the given prefix lengths; each has up to `depth` ancestors of its own, which stand behind all prefixes
    in an order of their own.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, rows = len(prefixes), len(prefixes[0])
    longest = max(max(line) for line in prefixes)
    context = max(context or 0, longest + rows * depth, 1)
    blocks = -(-context // BLOCK)
    tables = (torch.randperm(batch * blocks, generator=generator) + 1).view(batch, blocks)
    cache = random(((batch * blocks + 1) * BLOCK, 2 * heads.num_kv_heads, heads.head_dim), seed + 1, dtype)
    cache[:BLOCK] = float("nan")  # the dump is never read
    queries = random((batch, rows, heads.num_heads, heads.head_dim), seed + 2, dtype)
    ancestors = None
    if depth:
        places = torch.stack([torch.randperm(rows * depth, generator=generator) for _ in range(batch)])
        ancestors = longest + places.view(batch, rows, depth)
        counts = torch.randint(0, depth + 1, (batch, rows, 1), generator=generator)
        counts[0, 0] = depth
        ancestors = torch.where(torch.arange(depth) < counts, ancestors, -1)
    return AttentionCase(heads, queries, cache, tables, torch.tensor(prefixes), ancestors, context)


def attention_in_float64(case: AttentionCase) -> torch.Tensor:
    """One softmax at a time, over the positions that a row sees; zeros where it sees none."""
    batch, rows, num_heads, head_dim = case.queries.shape
    group, kv_heads = case.heads.group, case.heads.num_kv_heads
    result = torch.zeros(batch, rows, num_heads, head_dim, dtype=torch.float64)
    for sequence in range(batch):
        for row in range(rows):
            seen = list(range(int(case.prefixes[sequence, row])))
            if case.ancestors is not None:
                seen += [place for place in case.ancestors[sequence, row].tolist() if place >= 0]
            if not seen:
                continue
            places = torch.tensor(seen)
            slots = case.tables[sequence, places // BLOCK] * BLOCK + places % BLOCK
            for head in range(num_heads):
                keys = case.cache[slots, head // group].double()
                values = case.cache[slots, kv_heads + head // group].double()
                scores = keys @ case.queries[sequence, row, head].double() / head_dim**0.5
                result[sequence, row, head] = torch.softmax(scores, 0) @ values
    return result.view(batch * rows, num_heads * head_dim)


def rotary_table(head_dim: int, device: torch.device, positions: int = 300) -> RotaryTable:
    return RotaryTable(head_dim, 10000.0, None, positions, device)
