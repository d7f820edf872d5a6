"""Times, errors and bits of attention alone on a GPU, over keys and values that no cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ssd_lab.kernels.attention import paged_attention, plan_attention
from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionShape, AttentionTuning
from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels
from studies.tune_kernels.graph_timing import graph_us

BLOCK_SIZE = 16
TREE_DEPTH = 4  # ancestors of each row, itself included, where rows are a tree's
ROTATED_BYTES = 1 << 28  # more than five times the second cache of an H100
LEAST_BYTES = 1 << 31  # read by one graph, within these bounds of calls
FEWEST_CALLS, MOST_CALLS = 8, 64


@dataclass(frozen=True)
class AttentionSize:
    """`rows` query rows of each of `batch` sequences of `context` tokens; tree: branches, else the last tokens."""

    heads: HeadLayout
    batch: int
    context: int
    rows: int = 1
    tree: bool = False

    @property
    def shape(self) -> AttentionShape:
        """By which the kernels choose their cut."""
        return AttentionShape(self.heads, self.batch, self.rows, self.context, self.tree)

    @property
    def kv_bytes(self) -> int:
        """Keys and values, each once."""
        return self.batch * self.context * 2 * self.heads.num_kv_heads * self.heads.head_dim * 2

    @property
    def blocks(self) -> int:
        """Blocks of all sequences, the dump besides."""
        return self.batch * -(-self.context // BLOCK_SIZE)

    def step(self, device: str, tables: torch.Tensor | None = None) -> StepInput:
        """All that attention reads; without tables every block is the dump, which serves to compile."""
        if tables is None:
            tables = torch.zeros(self.batch, self.blocks // self.batch, dtype=torch.int64, device=device)
        rows = torch.arange(self.rows, device=device)
        ancestors = None
        prefixes = self.context - self.rows + 1 + rows
        if self.tree:
            own = self.context - self.rows * TREE_DEPTH
            ancestors = own + rows[:, None] * TREE_DEPTH + torch.arange(TREE_DEPTH, device=device)
            ancestors = ancestors.expand(self.batch, -1, -1)
            prefixes = torch.full_like(rows, own)
        prefixes = prefixes.expand(self.batch, -1).contiguous()
        unused = torch.zeros_like(prefixes)
        return StepInput(unused, prefixes - 1, unused, tables, prefixes, self.context, ancestors)

    def queries(self, device: str) -> torch.Tensor:
        """Random, the same every time; `[batch * rows, heads, head_dim]`."""
        generator = torch.Generator(device).manual_seed(2)
        shape = (self.batch * self.rows, self.heads.num_heads, self.heads.head_dim)
        return torch.randn(shape, generator=generator, device=device).bfloat16()


@dataclass(frozen=True)
class Caches:
    """Layers to rotate among, `[slots, 2 * kv_heads, head_dim]`, and tables that lead through them at random."""

    layers: list[torch.Tensor]
    tables: torch.Tensor


@contextmanager
def caches(size: AttentionSize, device: str = "cuda") -> Iterator[Caches]:
    """Enough of them that the second cache holds none, freed afterwards. The dump is not a number: nothing reads it."""
    generator = torch.Generator(device).manual_seed(0)
    shape = ((size.blocks + 1) * BLOCK_SIZE, 2 * size.heads.num_kv_heads, size.heads.head_dim)
    layers = []
    for _ in range(max(2, -(-ROTATED_BYTES // size.kv_bytes)) if device == "cuda" else 2):
        layers.append(torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(generator=generator))
        layers[-1][:BLOCK_SIZE] = torch.nan
    order = torch.randperm(size.blocks, generator=generator, device=device) + 1
    yield Caches(layers, order.view(size.batch, -1))
    layers.clear()
    if device == "cuda":
        torch.cuda.empty_cache()


def kernels_with(tuning: AttentionTuning, device: str) -> TritonKernels:
    """As an engine has them on this device."""
    return TritonKernels(tuning, pdl=device == "cuda" and torch.cuda.get_device_capability() >= (9, 0))


def run_once(size: AttentionSize, tuning: AttentionTuning, device: str, made: Caches | None = None) -> torch.Tensor:
    """The result `[batch, rows, heads * head_dim]`; without caches only to compile, over the dump."""
    kernels = kernels_with(tuning, device)
    step = size.step(device, None if made is None else made.tables)
    heads = size.heads
    cache = (
        torch.zeros(BLOCK_SIZE, 2 * heads.num_kv_heads, heads.head_dim, dtype=torch.bfloat16, device=device)
        if made is None
        else made.layers[0]
    )
    plan = kernels.plan(step, BLOCK_SIZE, heads, _rotary(size, device), torch.bfloat16)
    return kernels.attention(size.queries(device), cache, plan).view(size.batch, size.rows, -1)


def attention_us(size: AttentionSize, made: Caches, tuning: AttentionTuning, *, behind_rope: bool = False) -> float:
    """Microseconds of one layer's attention, with the rotation that makes its queries if behind_rope."""
    kernels, heads = kernels_with(tuning, "cuda"), size.heads
    plan = kernels.plan(size.step("cuda", made.tables), BLOCK_SIZE, heads, _rotary(size, "cuda"), torch.bfloat16)
    queries = size.queries("cuda")
    width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
    qkv = torch.randn(len(queries), width, device="cuda").bfloat16()

    def call(number: int) -> None:
        layer = made.layers[number % len(made.layers)]
        kernels.attention(kernels.rope_and_write(qkv, layer, plan) if behind_rope else queries, layer, plan)

    calls = min(max(FEWEST_CALLS, LEAST_BYTES // size.kv_bytes), MOST_CALLS)
    return graph_us(call, calls)


def _rotary(size: AttentionSize, device: str) -> RotaryTable:
    return RotaryTable(size.heads.head_dim, 1e4, None, size.context, torch.device(device))


@torch.inference_mode()
def check(
    tunings: list[AttentionTuning], heads: HeadLayout, context: int, rows: int = 24, device: str = "cuda"
) -> list[tuple[float, bool]]:
    """For each tuning its error against float64 over plain torch's (1 is as good), and: are its bits the first's?

    Compared with the first are `rows` rows of 3 sequences at once, each sequence alone, each row among 1 and 8, and the
    rows of a tree whose ancestors are those tokens; and every tuning with every other of the same `bits`.
    """
    whole = AttentionSize(heads, 3, context, rows)
    found = []
    with caches(whole, device) as made:
        exact = _in_float64(whole, made, device)
        plain = _plain(whole, made, device)
        first: dict[tuple[int, int], torch.Tensor] = {}
        for tuning in tunings:
            together = run_once(whole, tuning, device, made)
            expected = first.setdefault(tuning.bits, together)
            same = torch.equal(together, expected) and _alone_as_together(whole, tuning, device, made, expected)
            ratio = (together.double() - exact).norm() / (plain.double() - exact).norm()
            found.append((float(ratio), same))
    return found


def _alone_as_together(
    whole: AttentionSize, tuning: AttentionTuning, device: str, made: Caches, expected: torch.Tensor
) -> bool:
    """Has every row the expected bits in other company, and as a leaf of a tree?"""
    kernels, heads = kernels_with(tuning, device), whole.heads
    step, queries = whole.step(device, made.tables), whole.queries(device).unflatten(0, (whole.batch, whole.rows))
    rotary = _rotary(whole, device)

    def attend(part: StepInput, asked: torch.Tensor) -> torch.Tensor:
        plan = kernels.plan(part, BLOCK_SIZE, heads, rotary, torch.bfloat16)
        return kernels.attention(asked.flatten(0, 1), made.layers[0], plan).view(*asked.shape[:2], -1)

    for sequence in range(whole.batch):
        tables = made.tables[sequence : sequence + 1]
        for count in (1, 8, whole.rows):
            for start in range(0, whole.rows, count):
                rows = slice(start, start + count)
                prefixes = step.prefix_lengths[sequence : sequence + 1, rows]
                part = replace(step, block_tables=tables, prefix_lengths=prefixes)
                asked = queries[sequence : sequence + 1, rows]
                if not torch.equal(attend(part, asked), expected[sequence : sequence + 1, rows]):
                    return False
    shared = whole.context - whole.rows  # each row's keys behind it are its ancestors
    places = shared + torch.arange(whole.rows, device=device)
    ancestors = torch.where(places <= places[:, None], places, -1).expand(whole.batch, -1, -1)
    tree = replace(step, prefix_lengths=torch.full_like(step.prefix_lengths, shared), ancestors=ancestors)
    return torch.equal(attend(tree, queries), expected)


def _plain(size: AttentionSize, made: Caches, device: str) -> torch.Tensor:
    """Plain torch in the same dtype."""
    cache = made.layers[0].nan_to_num()
    plan = plan_attention(size.step(device, made.tables), BLOCK_SIZE, size.heads.group, torch.bfloat16)
    return paged_attention(size.queries(device), cache, plan).view(size.batch, size.rows, -1)


def _in_float64(size: AttentionSize, made: Caches, device: str) -> torch.Tensor:
    """One sequence at a time, softmax in full."""
    heads, step = size.heads, size.step(device, made.tables)
    queries = size.queries(device).view(size.batch, size.rows, heads.num_kv_heads, heads.group, -1).double()
    places = torch.arange(size.context, device=device)
    results = []
    for sequence in range(size.batch):
        slots = made.tables[sequence, places // BLOCK_SIZE] * BLOCK_SIZE + places % BLOCK_SIZE
        keys, values = made.layers[0][slots].double().split(heads.num_kv_heads, 1)
        scores = torch.einsum("rkgd,skd->rkgs", queries[sequence], keys) * heads.head_dim**-0.5
        hidden = places >= step.prefix_lengths[sequence, :, None]
        weights = scores.masked_fill(hidden[:, None, None], float("-inf")).softmax(-1)
        results.append(torch.einsum("rkgs,skd->rkgd", weights, values).flatten(1))
    return torch.stack(results)
