"""Heads of every layout on Llama and Qwen3 targets, through the strategy; and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from eagle3_cases import PROMPTS, autoregressive, eagle, params
from eagle3_checkpoints import DRAFT_VOCAB, head_tensors, write_safeailab, write_speculators
from eagle3_twin import Twin

from ssd_lab import LLM, demo, run
from ssd_lab.errors import ConfigError, DraftMismatchError, ModelLoadError
from ssd_lab.models.eagle3.loader import load_eagle3
from ssd_lab.models.loader import LoadedModel
from ssd_lab.strategies import registry

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "SafeAILab": lambda folder: write_safeailab(folder, head_tensors()),
    "SpecForge": lambda folder: write_safeailab(
        folder, head_tensors(fc_norm=True), fc_norm=True, norm_output=True,
        eagle_config={"eagle_aux_hidden_state_layer_ids": [0, 2, 4]},
    ),
    "speculators": lambda folder: write_speculators(
        folder, head_tensors(qk_norm=True, num_layers=2, input_norm=True),
        layer={"model_type": "qwen3", "num_hidden_layers": 2}, norm_before_residual=True, norm_before_fc=True,
    ),
}  # fmt: skip


@pytest.mark.quick("SafeAILab-target-async jit")
@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("mode", [pytest.param("sync", marks=pytest.mark.full), "async jit"])
@pytest.mark.parametrize("family", ["target", "qwen_target"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_drafts_for_every_family(
    request: pytest.FixtureRequest, tmp_path: Path, layout: str, family: str, mode: str
) -> None:
    target: LoadedModel = request.getfixturevalue(family)
    head = str(LAYOUTS[layout](tmp_path))
    twin = Twin(target, load_eagle3(head, target))
    with eagle(target, head, mode, max_batch=4) as llm:
        greedy = llm.run(PROMPTS, params(length=10))
        assert [output.token_ids for output in greedy.outputs] == autoregressive(target, length=10)
        twin.check(greedy, 0.0)
        twin.check(llm.run(PROMPTS, params(1.0, length=10)), 1.0)


@pytest.mark.full
def test_bfloat16_is_exact_as_well(tmp_path: Path) -> None:
    from testing_models import random_tensors, tiny_config

    from ssd_lab.models.loader import from_tensors

    config = tiny_config(120, num_layers=6)
    target = from_tensors(config, random_tensors(config, seed=1), dtype="bfloat16")
    head = str(LAYOUTS["SafeAILab"](tmp_path))
    expected = autoregressive(target, length=20)
    for mode in ("sync", "async jit"):
        for batch in (1, 4):
            with eagle(target, head, mode, max_batch=batch) as llm:
                assert [output.token_ids for output in llm.generate(PROMPTS, params(length=20))] == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "sync", "f": 2}, "f belongs to mode='async'"),
        ({"mode": "sync", "fallback": "fast"}, "fallback belongs to mode='async'"),
        ({"mode": "async", "f": 2, "fan_out": {"kind": "uniform", "f": 2}}, "give one of them"),
        ({"mode": "async", "k": 3, "fan_out": {"kind": "explicit", "hit": [1, 2]}}, "needs k \\+ 1 = 4"),
        ({"mode": "both"}, "sync"),
        ({"heads": "x"}, "did you mean 'head'"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.config("eagle3", fields)


def test_a_target_without_a_known_head_says_what_to_do(target: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="head=<folder or hub id>, or train one"):
        LLM(target, None, "eagle3", progress=False, threads=1)
    with pytest.raises(ModelLoadError):
        LLM(target, None, "eagle3", head=str(tmp_path), progress=False, threads=1)
    other = write_safeailab(tmp_path / "other", head_tensors(), target_hidden_size=32)
    with pytest.raises(DraftMismatchError, match="features of size 32"):
        LLM(target, None, "eagle3", head=str(other), progress=False, threads=1)


def test_links_over_which_features_would_travel_are_refused(target: LoadedModel, tmp_path: Path) -> None:
    head = str(LAYOUTS["SafeAILab"](tmp_path))
    for link in ("process", "stream"):
        with pytest.raises(ConfigError, match="inline or thread"):
            eagle(target, head, "async jit", draft_link=link)


def test_a_fan_out_beyond_the_heads_vocabulary_is_refused(target: LoadedModel, tmp_path: Path) -> None:
    head = str(LAYOUTS["SafeAILab"](tmp_path))
    with pytest.raises(ConfigError, match=f"can name {DRAFT_VOCAB - 1} recovery tokens"):
        eagle(target, head, "async jit", f=DRAFT_VOCAB)
    eagle(target, head, "async jit", f=DRAFT_VOCAB - 1).close()


@pytest.mark.full
@pytest.mark.skipif(not demo.EAGLE3.is_dir(), reason="no head is bundled")
def test_the_bundled_head_drafts_for_the_bundled_target() -> None:
    options: dict[str, Any] = {"max_tokens": 48, "progress": False, "threads": 1, "dtype": "float32"}
    prompts = demo.canned_prompts()[:6]
    plain = run(prompts, strategy="autoregressive", **options)
    for mode in ("sync", "async"):
        drafted = run(prompts, strategy="eagle3", mode=mode, k=5, max_batch=4, **options)
        assert [o.token_ids for o in drafted.outputs] == [o.token_ids for o in plain.outputs]
        if mode == "sync":
            assert drafted.metrics.tokens_per_round > 2.5
    torch.set_num_threads(1)
