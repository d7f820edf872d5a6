"""How the bundled models were made: their sizes, a target that learns, and every stage once, very small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ssd_lab import demo
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.loader import load_model
from ssd_lab.training.config import AnswerSettings, TrainConfig
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.distill import train_draft
from ssd_lab.training.eagle3 import Eagle3Training
from ssd_lab.training.eagle3_model import HeadConfig
from studies.bundled_models.__main__ import run_stages
from studies.bundled_models.config import DRAFT, TARGET, FamilyConfig, replace_nested
from studies.bundled_models.head import HeadRun, fitting_mlp, run
from studies.bundled_models.stages import STAGES, FamilyRun, completed
from studies.bundled_models.tokenizer import END_ID, prompt_text, save_tokenizer, train_tokenizer
from studies.bundled_models.train_target import held_out_loss, train_target

TINY = ModelConfig(
    model_type="llama", hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=16, mlp_size=48,
    vocab_size=64, max_positions=1024, tie_embeddings=True, eos_token_ids=(END_ID,), bos_token_id=0,
)  # fmt: skip
QUICK = TrainConfig(tokens_per_microbatch=256, microbatches_per_step=1, warmup_steps=2, max_length_tokens=64)


def toy_corpus(documents: int = 40) -> Corpus:
    """Documents that count upwards: easy to learn."""
    prompts = [[3, 5 + i % 7] for i in range(documents)]
    return Corpus.build(
        prompts, [[(6 + i % 7 + j) % 60 for j in range(10 + i % 5)] + [END_ID] for i in range(documents)]
    )


def test_sizes_of_the_bundled_family() -> None:
    assert 16.5e6 < TARGET.num_parameters < 16.8e6
    assert DRAFT.num_non_embedding_parameters * 8 <= TARGET.num_non_embedding_parameters
    for shape, folder in ((TARGET, demo.TARGET), (DRAFT, demo.DRAFT)):
        assert load_model(folder).config == shape


@pytest.mark.full
def test_a_tiny_family_learns() -> None:
    corpus = toy_corpus(60)
    before = held_out_loss(
        train_target(corpus, TINY, replace(QUICK, max_steps=1), device="cpu", progress=False),
        corpus,
        QUICK,
        device="cpu",
    )
    target = train_target(corpus, TINY, replace(QUICK, max_steps=40), device="cpu", progress=False)
    after = held_out_loss(target, corpus, QUICK, device="cpu")
    assert after < 0.6 * before
    again = train_target(corpus, TINY, replace(QUICK, max_steps=3), device="cpu", progress=False)
    once_more = train_target(corpus, TINY, replace(QUICK, max_steps=3), device="cpu", progress=False)
    for left, right in zip(again.parameters(), once_more.parameters(), strict=True):
        assert torch.equal(left, right)
    geometry = replace(TINY, hidden_size=16, num_heads=1, mlp_size=16)
    draft = train_draft(target, corpus, geometry, replace(QUICK, max_steps=60), progress=False)
    assert held_out_loss(draft, corpus, QUICK, device="cpu") < before


def test_tokenizer_round_trip_and_chat_template(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = ["Tom has 12 apples and 7 pears.", "def f(x):\n    return x + 1\n"] * 20
    tokenizer = train_tokenizer(texts, vocab_size=300)
    save_tokenizer(tokenizer, tmp_path, max_length_tokens=128)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.decode(loaded(texts[1]).input_ids) == texts[1]
    message = [{"role": "user", "content": "Hi 42"}]
    assert loaded.apply_chat_template(message, tokenize=False, add_generation_prompt=True) == prompt_text("Hi 42")
    assert loaded.eos_token_id == END_ID
    assert len(loaded("12345").input_ids) == 5


def test_config_changes_are_checked() -> None:
    config = replace_nested(FamilyConfig(), {"target": {"num_layers": 2}, "teacher_temperatures": [0.5]})
    assert config.target.num_layers == 2 and config.teacher_temperatures == (0.5,)
    with pytest.raises(ValueError, match="unknown fields"):
        replace_nested(FamilyConfig(), {"layers": 2})
    assert np.isclose(FamilyConfig().target_training.budget_s, 480.0)


def write_prompts(path: Path, prompts: list[str]) -> Path:
    rows = [{"dataset": "mine", "id": f"mine/{n}", "prompt": prompt} for n, prompt in enumerate(prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.full
def test_every_stage_runs_and_the_pair_loads(tmp_path: Path) -> None:
    """The teacher is the bundled target, which speaks the same format."""
    quick = replace(QUICK, tokens_per_microbatch=512, max_length_tokens=128, max_steps=2)
    short = AnswerSettings(max_batch=16, max_length_tokens=128, max_prompt_tokens=64, max_new_tokens=16)
    config = FamilyConfig(
        target=replace(TINY, vocab_size=300), drafts={"one": replace(TINY, vocab_size=300, hidden_size=16)},
        num_own_prompts=30, num_self_prompts=8, samples_per_prompt=1, samples_per_file_prompt=2,
        teacher_budget_s=60, teacher_answers=short, self_budget_s=60, self_answers=short, target_training=quick,
        draft_training=quick, evaluation_prompts=2, evaluation_new_tokens=8,
    )  # fmt: skip
    files = [
        write_prompts(tmp_path / f"{name}.jsonl", [f"Name {n} {name} of the sea." for n in ("two", "three", "four")])
        for name in ("ships", "birds")
    ]
    made = FamilyRun(config, tmp_path / "work", demo.TARGET, files[0], (files[1],), "cpu", progress=False)
    run_stages(made, list(STAGES))
    assert completed(made) == list(STAGES)
    evaluation = json.loads((tmp_path / "work" / "evaluation.json").read_text())
    assert evaluation["birds"]["prompts"] == 2 and evaluation["birds"]["one"]["tokens_per_round"] >= 1
    report = json.loads((tmp_path / "work" / "corpus_report.json").read_text())
    assert report["answers"] >= 30 and report["kept"] > 10
    for role in ("target", "draft"):
        model = load_model(tmp_path / "work" / "family" / role)
        assert model.tokenizer is not None and model.tokenizer.eos_token_ids == (END_ID,)


@pytest.mark.full
def test_the_head_is_trained_saved_and_drafts_as_it_was_trained(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", ["Why is the sky blue?", "Name three birds."])
    tests = tmp_path / "tests"
    tests.mkdir()
    write_prompts(tests / "colours.jsonl", ["Name two colours.", "What colour is grass?"])
    settings = TrainConfig(tokens_per_microbatch=512, microbatches_per_step=1, max_length_tokens=96, max_steps=2)
    plan = HeadRun(
        prompts=prompts, tests=tests, out=tmp_path / "head", work=tmp_path / "work", budget_s=600, answers_s=60,
        device="cpu", head=HeadConfig(8, 2, 32, (2, 4, 6)), training=Eagle3Training(run=settings, unroll_steps=2),
        num_own_prompts=6, passes=1, k=3, test_prompts=2, progress=False,
    )  # fmt: skip
    assert run(plan) < 0.01
    card = (tmp_path / "head" / "README.md").read_text(encoding="utf-8")
    assert "| colours | 2 |" in card and "all, weighted by rounds" in card
    assert fitting_mlp(TARGET, None) > fitting_mlp(TARGET, 1000) > 32
