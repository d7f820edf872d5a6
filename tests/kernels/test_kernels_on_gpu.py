"""What only a GPU can show: kernels captured in a CUDA graph, and launched ahead of the end of the one before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_cases import BLOCK, attention_case, random, rotary_table, same_bits

from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.interface import HeadLayout, Kernels
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionTuning
from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
HEADS = HeadLayout(8, 2, 64)


class Layer:
    """All operations of a layer and of a pick, one after another, on buffers that stay where they are."""

    def __init__(self, kernels: Kernels, batch: int = 2, rows: int = 5) -> None:
        case = attention_case(
            HEADS, torch.bfloat16, [[300 + row for row in range(rows)]] * batch, depth=3, context=1000
        ).to(torch.device("cuda"))
        self.kernels, self.cache, self.case = kernels, case.cache.clone(), case
        count = batch * rows
        shape = (batch, rows)
        self.prefixes = case.prefixes.clone()
        positions = torch.arange(count, device="cuda").view(shape)
        self.step = StepInput(positions, positions, positions % BLOCK, case.tables, self.prefixes, 1000, case.ancestors)
        self.cache[:BLOCK] = 0
        self.hidden = random((count, 512), 1, torch.bfloat16).cuda()
        self.delta = random((count, 512), 2, torch.bfloat16).cuda()
        self.qkv = random((count, 12 * 64), 3, torch.bfloat16).cuda()
        self.norm = RmsNorm(torch.ones(512, dtype=torch.bfloat16, device="cuda"), 1e-5)
        self.table = rotary_table(64, torch.device("cuda"))

    def __call__(self) -> list[torch.Tensor]:
        kernels = self.kernels
        plan = kernels.plan(self.step, BLOCK, HEADS, self.table, torch.bfloat16)
        total, normed = kernels.add_rms_norm(self.hidden, self.delta, self.norm)
        queries = kernels.rope_and_write(self.qkv, self.cache, plan)
        attended = kernels.attention(queries, self.cache, plan)
        again, normed_again = kernels.add_rms_norm(total, attended, self.norm)
        gated = kernels.gated_silu(normed_again)
        tokens, probs = kernels.greedy_pick(again, want_probs=True)
        drawn = kernels.sample(torch.softmax(gated.float(), -1), torch.full((len(gated),), 0.4, device="cuda"))
        assert probs is not None
        return [total, normed, queries, attended, again, gated, tokens, probs, drawn]


def captured(layer: Layer) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        layer()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = layer()
    return graph, results


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(same_bits(one, other) for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize("pdl", [False, True])
def test_a_graph_replays_what_runs_eagerly(pdl: bool) -> None:
    """Also with other lengths than those it was captured with, and many times over."""
    if pdl and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("programmatic dependent launch needs compute capability 9.0")
    layer = Layer(choose_kernels("cuda", "triton", pdl=pdl))
    plain = Layer(choose_kernels("cuda", "triton"))
    graph, results = captured(layer)
    for shift in (0, -150, 37, -299):
        for one in (layer, plain):
            one.prefixes.copy_(one.case.prefixes + shift)
        expected = plain()
        for _ in range(20):
            graph.replay()
        torch.cuda.synchronize()
        assert equal(results, expected), shift


@pytest.mark.parametrize(
    "tuning",
    [
        AttentionTuning(gathered=True, unroll=16, combine_warps=4),
        AttentionTuning(gathered=True, early=True, num_stages=1),
        AttentionTuning(early=True, programs=1),
        AttentionTuning(direct=True),
        AttentionTuning(early=True, direct=True, gathered=True, unroll=2),
    ],
)
def test_reading_early_and_storing_directly_change_nothing(tuning: AttentionTuning) -> None:
    """Their K/V, of this step's rows, differs each time, and lies in the splits that are read first and last."""
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("programmatic dependent launch needs compute capability 9.0")
    layer, plain = Layer(TritonKernels(tuning, pdl=True)), Layer(choose_kernels("cuda", "triton", pdl=False))
    for one in (layer, plain):  # rows are written where a chain's are, so attention sees them
        slots = one.case.tables.gather(1, (one.prefixes - 1) // BLOCK) * BLOCK + (one.prefixes - 1) % BLOCK
        one.step = replace(one.step, write_slots=slots)
    graph, results = captured(layer)
    for seed in range(20):
        for one in (layer, plain):
            one.qkv.copy_(random(tuple(one.qkv.shape), seed, torch.bfloat16))
        expected = plain()
        for _ in range(5):
            graph.replay()
        torch.cuda.synchronize()
        assert equal(results, expected), seed


def test_two_graphs_on_two_streams_do_not_disturb_each_other() -> None:
    kernels = choose_kernels("cuda", "triton")
    layers = [Layer(kernels, 2, 5), Layer(kernels, 1, 24)]
    graphs = [captured(layer) for layer in layers]
    expected = [layer() for layer in layers]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    for _ in range(50):
        for stream, (graph, _) in zip(streams, graphs, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    for (_, results), wanted in zip(graphs, expected, strict=True):
        assert equal(results, wanted)
