"""Prompts in one step: a token's K/V has the same bits however its text is cut, and whoever is computed beside it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from replay_graphs import ReplayBackend

from ssd_lab import demo
from ssd_lab.execution.executor import EagerExecutor, Executor
from ssd_lab.execution.graphs import GraphExecutor
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.phases.prefill import prefill
from ssd_lab.rounds import prompt_lines
from ssd_lab.rounds.prompt_lines import PromptPart, cut_into_steps
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner

CPU = torch.device("cpu")
BLOCK = 8
LENGTHS = (130, 1, 17, 64, 40, 9)  # more than one piece, one token, and what needs padding


def executor_of(kind: str) -> Executor:
    return EagerExecutor(CPU) if kind == "eager" else GraphExecutor(ReplayBackend())


class Texts:
    """Texts of random tokens, each with blocks of its own, and what a model's cache holds of them; few where a model
    computes for long.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        lengths = LENGTHS if model.config.hidden_size < 100 else LENGTHS[:3]
        draw = torch.Generator().manual_seed(4)
        self.ids = [torch.randint(0, 100, (length,), generator=draw).tolist() for length in lengths]
        needed = [-(-length // BLOCK) for length in lengths]
        starts = [1 + sum(needed[:text]) for text in range(len(needed))]
        self.tables = [list(range(start, start + count)) for start, count in zip(starts, needed, strict=True)]

    def runner(self, kind: str = "eager") -> StepRunner:
        blocks = 1 + sum(map(len, self.tables))
        cache = PagedKVCache(self.model.config, blocks, BLOCK, self.model.dtype, CPU)
        return StepRunner(self.model.decoder, cache, CPU, executor_of(kind))

    def part(self, text: int, start: int, stop: int) -> PromptPart:
        return PromptPart(self.ids[text][start:stop], start, self.tables[text])

    def parts(self, *cuts: int) -> list[list[PromptPart]]:
        """Steps of all texts, cut at these places."""
        steps = [
            [self.part(text, first, min(last, len(ids))) for text, ids in enumerate(self.ids) if first < len(ids)]
            for first, last in pairwise((0, *cuts, max(map(len, self.ids))))
        ]
        return [parts for parts in steps if parts]

    def kept(self, runner: StepRunner) -> list[torch.Tensor]:
        """K/V of every token, `[layers, tokens, ...]` of each text."""
        layers = torch.stack(list(runner.cache.layers)).unflatten(1, (-1, BLOCK))
        return [layers[:, table].flatten(1, 2)[:, : len(ids)] for ids, table in zip(self.ids, self.tables, strict=True)]


@pytest.fixture(
    scope="module",
    params=[
        *("tiny, float32", "tiny, bfloat16", "bundled, bfloat16"),
        pytest.param("bundled, float32", marks=pytest.mark.full),
    ],
)
def models(request: Any, tiny_pair: Any) -> tuple[LoadedModel, LoadedModel]:
    torch.set_num_threads(1)
    pair, dtype = request.param.split(", ")
    folders = (tiny_pair.target, tiny_pair.draft) if pair == "tiny" else (demo.TARGET, demo.DRAFT)
    return load_model(str(folders[0]), dtype=dtype), load_model(str(folders[1]), dtype=dtype)


@torch.inference_mode()
def one_by_one(texts: Texts) -> list[torch.Tensor]:
    """Each token fed alone, as decoding without a draft does."""
    runner = texts.runner()
    for ids, table in zip(texts.ids, texts.tables, strict=True):
        for place, token in enumerate(ids):
            runner.decoder.forward(causal_step_at(torch.tensor([[token]]), [place], [table], BLOCK), runner.cache)
    return texts.kept(runner)


@pytest.mark.quick("tiny, float32-target", "tiny, bfloat16-draft")
@pytest.mark.parametrize("role", [0, 1], ids=["target", "draft"])
def test_k_v_has_the_bits_of_decoding_however_prompts_are_cut_and_put_together(models: Any, role: int) -> None:
    texts = Texts(models[role])
    expected = one_by_one(texts)
    ways = {
        "all in one step": texts.parts(),
        "alone": [[texts.part(text, 0, len(ids))] for text, ids in enumerate(texts.ids)],
        "chunks of 16 and the rest": texts.parts(16),
        "odd chunks": texts.parts(3, 20, 57, 111),
        "a long one beside short beginnings": [texts.parts()[0][:1], texts.parts(5)[0][1:], texts.parts(5)[1][1:]],
    }
    with torch.inference_mode():
        for kind in ("eager", "graphs"):
            for way, steps in ways.items():
                runner = texts.runner(kind)
                for parts in steps:
                    prefill(runner, parts)
                for text, (ours, theirs) in enumerate(zip(texts.kept(runner), expected, strict=True)):
                    assert torch.equal(ours, theirs), f"text {text}, {way}, {kind}"


@pytest.mark.quick("tiny, float32", "tiny, bfloat16")
def test_features_come_back_by_text_and_stay_when_the_step_is_repeated(models: Any) -> None:
    texts = Texts(models[0])
    with torch.inference_mode():
        expected = []
        for ids, table in zip(texts.ids, texts.tables, strict=True):
            own = dict.fromkeys((1, 2), torch.empty(0))
            runner, step = texts.runner(), causal_step_at(torch.tensor([ids]), [0], [table], BLOCK)
            runner.decoder.forward(step, runner.cache, features=own)
            expected.append(torch.cat([own[1][0], own[2][0]], -1))
        runner = texts.runner("graphs")
        for _ in range(4):  # run as they are, then captured and replayed
            features = prefill(runner, texts.parts()[0], feature_layers=(1, 2))
            assert features is not None
            prefill(runner, [texts.part(2, 0, 17)], feature_layers=(1, 2))
            for ours, theirs in zip(features, expected, strict=True):
                assert torch.equal(ours, theirs)


# --- layout -----------------------------------------------------------------------------------------------------------


def parts_of(*lengths: int) -> list[PromptPart]:
    return [PromptPart(list(range(length)), 0, [1]) for length in lengths]


@pytest.mark.parametrize("recurring", [False, True])
@pytest.mark.parametrize("most", [128, 4096])
@pytest.mark.parametrize("lengths", [(1,), (511,), (99,) * 16, (5, 300, 64, 1, 2), (7000,), LENGTHS])
def test_every_token_is_in_one_line_in_order(lengths: tuple[int, ...], most: int, recurring: bool) -> None:
    steps = cut_into_steps(parts_of(*lengths), most, recurring=recurring)
    found: list[list[int]] = [[] for _ in lengths]
    for step in steps:
        assert len(step.lines) <= step.size and step.size * step.rows <= most
        for line in step.lines:
            assert 0 < line.count <= step.rows
            found[line.part] += range(line.first, line.first + line.count)
    assert found == [list(range(length)) for length in lengths]


def test_padding_is_small_where_steps_are_large_and_shapes_recur_where_they_are_small() -> None:
    for count in (99, 100, 120, 127):
        steps = cut_into_steps(parts_of(*[count] * 16), 4096, recurring=True)
        computed = sum(step.size * step.rows for step in steps)
        assert len(steps) == 1 and computed <= 1.15 * 16 * count
    shapes = {
        (step.size, step.rows, step.context)
        for length in range(1, 1025)
        for step in cut_into_steps(parts_of(length), 4096, recurring=True)
    }
    assert len(shapes) <= len(prompt_lines.GRAPH_ROWS)
    alone = cut_into_steps(parts_of(77), 128, recurring=False)
    assert [(step.size, step.rows) for step in alone] == [(1, 77)], "a CPU pads nothing"


@pytest.mark.quick("tiny, float32")
def test_a_shape_is_captured_when_it_comes_for_the_third_time(models: Any) -> None:
    texts = Texts(models[1])
    runner, backend = texts.runner(), ReplayBackend()
    runner.executor = GraphExecutor(backend)
    with torch.inference_mode():
        for captured in (0, 0, 1, 1):
            prefill(runner, [texts.part(2, 0, 17)])
            assert backend.captured == captured
