"""Prompts on a GPU: K/V has the bits of decoding, at the shapes of real models, in steps of up to 2,048 rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.execution.executor import Executor
from ssd_lab.execution.make_executor import make_executor
from ssd_lab.models.assemble import assemble
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.inflate.geometry import GEOMETRIES
from ssd_lab.models.inflate.plan import plan_inflation
from ssd_lab.models.inflate.source import open_inflated
from ssd_lab.models.inflate.weights import InflatedWeights
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import load_model
from ssd_lab.phases.prefill import prefill
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner

CUDA, BLOCK = torch.device("cuda"), 16
LENGTHS = (1301, 500, 99, 17, 100, 31)  # together 2,048
LAYERS = 6  # as the bundled target: every layer of the shape computes real text


def shape_of_8b() -> Decoder:
    """Llama 8B's products and heads, with few layers."""
    geometry = GEOMETRIES["llama-8b"]
    short = replace(geometry, config=replace(geometry.config, num_layers=LAYERS))
    opened = open_inflated(short, demo.TARGET)
    plan = plan_inflation(opened.small.config, short.config, short.name)
    weights = InflatedWeights(plan, opened.small.weights, dtype=torch.bfloat16, device=CUDA)
    return assemble(plan.config, weights, dtype=torch.bfloat16, device=CUDA, source="8B, six layers")


def decoder_of(name: str) -> Decoder:
    return shape_of_8b() if name == "8B" else load_model(str(name), dtype="bfloat16", device="cuda").decoder


class Cache:
    """A cache of texts with blocks of their own, and the runner over it."""

    def __init__(self, decoder: Decoder, texts: Sequence[list[int]], executor: Executor) -> None:
        self.texts, config = texts, decoder.config
        needed = [-(-len(ids) // BLOCK) for ids in texts]
        starts = [1 + sum(needed[:text]) for text in range(len(texts))]
        self.tables = [list(range(start, start + count)) for start, count in zip(starts, needed, strict=True)]
        self.cache = PagedKVCache(config, 1 + sum(needed), BLOCK, torch.bfloat16, CUDA)
        self.runner = StepRunner(decoder, self.cache, CUDA, executor)

    def part(self, text: int, start: int, stop: int) -> PromptPart:
        return PromptPart(self.texts[text][start:stop], start, self.tables[text])

    def wholes(self) -> list[PromptPart]:
        return [self.part(text, 0, len(ids)) for text, ids in enumerate(self.texts)]

    def differing(self, other: Cache) -> int:
        """Layers of texts whose K/V is not the same."""
        return sum(
            not torch.equal(
                ours.unflatten(0, (-1, BLOCK))[table].flatten(0, 1)[: len(ids)],
                theirs.unflatten(0, (-1, BLOCK))[table].flatten(0, 1)[: len(ids)],
            )
            for ours, theirs in zip(self.cache.layers, other.cache.layers, strict=True)
            for ids, table in zip(self.texts, self.tables, strict=True)
        )


@torch.inference_mode()
@pytest.mark.parametrize("name", ["8B", str(demo.TARGET), str(demo.DRAFT)], ids=["8B", "target", "draft"])
def test_k_v_of_2048_rows_has_the_bits_of_decoding_in_any_chunks(name: str) -> None:
    decoder = decoder_of(name)
    longest = min(1301, decoder.config.max_positions - 8)
    draw = torch.Generator().manual_seed(5)
    texts = [torch.randint(3, 1000, (min(n, longest),), generator=draw).tolist() for n in LENGTHS]

    def cache(*, eager: bool) -> Cache:
        return Cache(decoder, texts, make_executor(CUDA, eager=eager))

    expected = cache(eager=True)
    for place in range(longest):  # all texts side by side, one row of each, as decoding does
        own = [text for text, ids in enumerate(texts) if place < len(ids)]
        tokens = torch.tensor([[texts[text][place]] for text in own], device=CUDA)
        tables = [expected.tables[text] for text in own]
        decoder.forward(causal_step_at(tokens, [place] * len(own), tables, BLOCK), expected.cache)
    if name == "8B":
        assert decoder.row_padding.together >= 2048
    for eager in (True, False):
        together = cache(eager=eager)
        prefill(together.runner, together.wholes())
        assert together.differing(expected) == 0, "all in one step"
        chunks = cache(eager=eager)
        for size in (128, 333, 900):  # graphs: twice as they are, then captured
            for start in range(0, longest, size):
                parts = [chunks.part(t, start, min(start + size, len(ids))) for t, ids in enumerate(texts)]
                prefill(chunks.runner, [part for part in parts if part.token_ids])
            assert chunks.differing(expected) == 0, f"chunks of {size}"


@pytest.mark.parametrize("strategy", ["autoregressive", "sync_chain", "async_tree", "eagle3"])
def test_texts_do_not_depend_on_how_prompts_come_in(strategy: str) -> None:
    """Together, alone, in chunks beside others, graphs or not."""
    fields: dict[str, Any] = {"autoregressive": {}, "eagle3": {}}.get(strategy, {"k": 4})
    draft = str(demo.DRAFT) if strategy in ("sync_chain", "async_tree") else None
    prompts = [ids[: 40 + 90 * row] for row, ids in enumerate(_texts(8))]
    params = SamplingParams(max_tokens=48, ignore_eos=True)
    texts = []
    for options in ({"max_batch": 1}, {"max_batch": 8}, {"max_batch": 3, "max_prefill_tokens": 70}, {"eager": True}):
        with LLM(str(demo.TARGET), draft, strategy, device="cuda", progress=False, **options, **fields) as llm:
            for _ in range(2):
                texts.append([output.token_ids for output in llm.generate(prompts, params)])
    assert all(own == texts[0] for own in texts)


def _texts(count: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(6)
    return [torch.randint(3, 1000, (800,), generator=draw).tolist() for _ in range(count)]
