"""Target and draft of one tokenizer whose embeddings have more rows than it has ids, and not equally many."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from power import found_wrong
from safetensors.torch import load_file, save_file

from ssd_lab import LLM, SamplingParams
from ssd_lab.check import Extent, check
from ssd_lab.errors import DraftMismatchError
from ssd_lab.models.loader import LoadedModel, load_model

IDS = 259  # of the tokenizer
TARGET_ROWS = 272
PROMPTS: list[Any] = ["Hello there", "x = 7", [5] * 40]
SAMPLED = Extent(num_prompts=6, batches=(), temperatures=(1.0,), draws=600)
OPTIONS: dict[str, Any] = {"dtype": "float32", "threads": 1, "progress": False, "chat": False}


def padded(source: str, folder: Path, rows: int, **entries: Any) -> LoadedModel:
    """One of the tiny pair with so many rows. Those past the tokenizer's ids would be the likeliest everywhere."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    more = torch.randn(max(0, rows - IDS), 64, generator=torch.Generator().manual_seed(rows))
    for name, scale in (("model.embed_tokens.weight", 1.0), ("lm_head.weight", 8.0)):
        tensors[name] = torch.cat([tensors[name], more * scale])[:rows].clone()
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": rows, **entries}))
    return load_model(folder, dtype="float32")


@pytest.fixture(scope="module")
def target(tiny_pair, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """272 rows for 259 ids."""
    return padded(tiny_pair.target, tmp_path_factory.mktemp("padded") / "target", TARGET_ROWS)


@pytest.fixture(scope="module", params=[200, 259, 264, 272, 320])
def draft(request: pytest.FixtureRequest, tiny_pair, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Fewer rows than the target, as many, more, and fewer than the tokenizer has ids."""
    return padded(tiny_pair.draft, tmp_path_factory.mktemp("padded") / "draft", request.param)


STRATEGIES: dict[str, dict[str, Any]] = {
    "sync_chain": {"strategy": "sync_chain", "k": 4},
    "sync_tree": {"strategy": "sync_tree"},
    "async_tree": {"strategy": "async_tree", "k": 3, "f": 2, "draft_link": "inline"},
    "async_tree, random guesses": {
        "strategy": "async_tree",
        "k": 3,
        "f": 1,
        "fallback": {"kind": "fast", "source": "random"},
        "draft_link": "inline",
    },
    "async_tree in a process": {"strategy": "async_tree", "k": 3, "f": 2, "draft_link": "process"},
}


def tokens(model: LoadedModel, small: LoadedModel | None, params: SamplingParams, **fields: Any) -> list[list[int]]:
    with LLM(model, small, **{**OPTIONS, **fields}) as llm:
        result = llm.run(PROMPTS, params)
        if small is not None:
            assert result.metrics.tokens_per_round > 1  # the draft lives, and guesses
            drafted = {token for entry in result.trace.rounds for s in entry.sequences for token in s.draft_tokens}
            assert max(drafted) < IDS
        return [output.token_ids for output in result.outputs]


@pytest.mark.quick(
    "200-sync_chain",
    "320-async_tree in a process",
    "264-async_tree",
    full=["200-async_tree, random guesses", "259-sync_tree", "272-sync_chain", "320-sync_tree"],
)
@pytest.mark.grid(full=4)
@pytest.mark.parametrize("name", STRATEGIES)
def test_greedy_text_is_the_autoregressive_text(target: LoadedModel, draft: LoadedModel, name: str) -> None:
    params = SamplingParams(max_tokens=24, ignore_eos=True)
    expected = tokens(target, None, params, strategy="autoregressive")
    assert max(token for ids in expected for token in ids) < IDS
    assert tokens(target, draft, params, **STRATEGIES[name]) == expected


@pytest.mark.quick("200-async_tree, random guesses", "320-async_tree")
@pytest.mark.parametrize("name", ["sync_chain", "async_tree", "async_tree, random guesses"])
def test_sampled_text_holds_ids_of_the_tokenizer_only(target: LoadedModel, draft: LoadedModel, name: str) -> None:
    params = SamplingParams(max_tokens=24, ignore_eos=True, temperature=2.0, seed=3)
    found = tokens(target, draft, params, **STRATEGIES[name])
    assert all(0 <= token < IDS for ids in found for token in ids)


@pytest.mark.quick(full=["chain-320"])
@pytest.mark.grid(full=4)
@pytest.mark.parametrize("draft", [200, 320], indirect=True)
@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param({"strategy": "sync_chain", "k": 3}, id="chain"),
        pytest.param({"strategy": "sync_tree"}, id="tree", marks=pytest.mark.full),
        pytest.param(
            {"strategy": "async_tree", "k": 3, "f": 3, "saguaro_c": 0.5}, id="Saguaro", marks=pytest.mark.full
        ),
        pytest.param(
            {"strategy": "async_tree", "k": 3, "f": 2, "fallback": {"kind": "fast", "source": "random"}},
            id="random guesses",
            marks=pytest.mark.full,
        ),
    ],
)
def test_sampled_text_follows_the_target_whatever_rows_the_draft_has(
    target: LoadedModel, draft: LoadedModel, strategy: dict[str, Any]
) -> None:
    report = check(
        [strategy], target=target.source, draft=draft.source, dtype="float32", extent=SAMPLED, progress=False,
        draft_link="inline", threads=1,
    )  # fmt: skip
    assert found_wrong(report) == set() and all(path.impossible == 0 for path in report.paths)
    assert any(path.p_values for path in report.paths)


def test_padding_of_the_prompt_is_read_by_a_draft_without_such_rows(tiny_pair, tmp_path: Path, target) -> None:
    small = padded(tiny_pair.draft, tmp_path / "draft", 259)
    with LLM(target, small, strategy="sync_chain", k=3, **OPTIONS) as llm:
        assert (
            len(llm.generate([TARGET_ROWS - 1, 5, 6], SamplingParams(max_tokens=8, ignore_eos=True))[0].token_ids) == 8
        )


def test_a_draft_of_a_shorter_context_guesses_to_the_end_of_the_targets(tiny_pair, tmp_path: Path, target) -> None:
    small = padded(tiny_pair.draft, tmp_path / "draft", 264, max_position_embeddings=32)
    assert small.config.max_positions == 32
    prompt, params = [5, 6, 7] * 100, SamplingParams(max_tokens=40, ignore_eos=True)
    with LLM(target, None, strategy="autoregressive", **OPTIONS) as llm:
        expected = llm.generate(prompt, params)[0].token_ids
    with LLM(target, small, strategy="sync_chain", k=3, **OPTIONS) as llm:
        result = llm.run(prompt, params)
    assert result.outputs[0].token_ids == expected
    assert sum(len(s.draft_tokens) for entry in result.trace.rounds for s in entry.sequences) > 40


def test_other_pieces_are_refused_whatever_the_sizes(tiny_pair, tmp_path: Path, target) -> None:
    padded(tiny_pair.draft, tmp_path / "draft", 264)
    text = (tmp_path / "draft" / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "draft" / "tokenizer.json").write_text(text.replace("<|user|>", "<|human|>"), encoding="utf-8")
    small = load_model(tmp_path / "draft")
    with pytest.raises(DraftMismatchError, match="1 ids differ: id 256"):
        LLM(target, small, strategy="sync_chain", **OPTIONS)


def test_logits_of_padding_give_no_probability_at_the_hottest_temperature(target: LoadedModel) -> None:
    with LLM(target, None, strategy="autoregressive", **OPTIONS) as llm:
        logits = llm.score([5, 6, 7])
    assert torch.softmax(logits / 10.0, -1)[:, IDS:].sum() == 0
    assert logits.isfinite().all()


def test_an_end_token_that_the_tokenizer_does_not_know_can_be_produced(tiny_pair, tmp_path: Path) -> None:
    model = padded(tiny_pair.target, tmp_path / "target", TARGET_ROWS, eos_token_id=[258, 265])
    with LLM(model, None, strategy="autoregressive", **OPTIONS) as llm:
        logits = llm.score([5, 6, 7])
    assert (logits[:, 265] > -1e3).all() and (logits[:, 266:] < -1e20).all()
