"""Packing, the model against transformers, bulk generation, and a tiny family whose loss falls."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from ssd_lab.training.config import (
    DRAFT,
    TARGET,
    FamilyConfig,
    GenerationConfig,
    ModelConfig,
    TrainConfig,
    replace_nested,
)
from ssd_lab.training.corpus import Corpus, microbatches
from ssd_lab.training.distill import train_draft
from ssd_lab.training.evaluate import guess_quality
from ssd_lab.training.generate import BulkGenerator, Request
from ssd_lab.training.model import Llama, load_hf, save_hf
from ssd_lab.training.pretrain import held_out_loss, train_target
from ssd_lab.training.tokenizer import END_ID, END_OF_TEXT_ID, prompt_text, save_tokenizer, train_tokenizer

TINY = ModelConfig(
    hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=48, vocab_size=64, head_dim=16
)
QUICK = TrainConfig(tokens_per_microbatch=256, microbatches_per_step=1, warmup_steps=2, max_length_tokens=64)


def toy_corpus(documents: int = 40) -> Corpus:
    """Documents that count upwards: easy to learn."""
    prompts = [[3, 5 + i % 7] for i in range(documents)]
    return Corpus.build(
        prompts, [[(6 + i % 7 + j) % 60 for j in range(10 + i % 5)] + [END_ID] for i in range(documents)]
    )


def tiny_model() -> Llama:
    model = Llama(TINY)
    model.initialise(torch.Generator().manual_seed(0))
    return model


def test_sizes_of_the_bundled_family() -> None:
    assert 16.5e6 < TARGET.num_parameters < 16.8e6
    for draft in (DRAFT,):
        assert draft.num_body_parameters * 8 <= TARGET.num_body_parameters
    assert sum(p.numel() for p in Llama(TINY).parameters()) == TINY.num_parameters


def test_microbatches_keep_documents_whole() -> None:
    corpus = toy_corpus()
    batch = next(microbatches(corpus, size_tokens=256, prompt_weight=0.5, seed=1, device="cpu"))
    starts = sorted(set(batch.starts.tolist()))
    assert starts[0] == 0 and starts[-1] == 256
    documents = {tuple(corpus.tokens[a:b].tolist()) for a, b in pairwise(corpus.starts)}
    packed = 0
    for begin, end in pairwise(starts):
        if batch.weights[begin:end].sum() == 0:
            continue  # padding
        packed += 1
        assert tuple(batch.tokens[begin:end].tolist()) in documents
        assert batch.positions[begin:end].tolist() == list(range(end - begin))
        assert batch.labels[begin : end - 1].tolist() == batch.tokens[begin + 1 : end].tolist()
        assert batch.labels[end - 1] == -100 and batch.weights[end - 1] == 0
        assert batch.weights[begin] == 0.5 and batch.weights[begin + 1] == 1.0
    assert packed > 5


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(ValueError, match="no documents"):
        next(microbatches(Corpus.build([], []), size_tokens=64, prompt_weight=0.0, seed=0, device="cpu"))


def test_packed_documents_do_not_see_each_other_and_agree_with_transformers(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny_model().float()
    first, second = torch.tensor([3, 9, 4, 11]), torch.tensor([7, 8, 2])
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    starts = torch.tensor([0, 4, 7, 7], dtype=torch.int32)  # the last, empty, sequence stands for padding
    save_hf(model, tmp_path, bos_id=END_OF_TEXT_ID, eos_id=END_ID)
    reloaded = load_hf(tmp_path, device="cpu", dtype=torch.float32)
    packed = reloaded.logits(reloaded.hidden(torch.cat([first, second]), positions, starts, 8))
    reference = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        for tokens, mine in ((first, packed[:4]), (second, packed[4:])):
            torch.testing.assert_close(mine, reference(tokens[None]).logits[0], atol=1e-5, rtol=1e-4)


def test_bulk_generation_equals_one_at_a_time() -> None:
    model = tiny_model().float()
    prompts = [[3, 5, 9], [4, 8], [7, 7, 7, 2], [11, 3], [5, 6, 1, 9, 8]]
    config = GenerationConfig(rows=2, max_length_tokens=32, max_new_tokens=6, min_p=0.0, steps_per_harvest=3)
    generator = BulkGenerator(model, config, eos_id=END_ID)
    answers = {a.index: a for batch in generator.run(Request(i, p, 0.0) for i, p in enumerate(prompts)) for a in batch}
    assert sorted(answers) == list(range(len(prompts)))
    for index, prompt in enumerate(prompts):
        tokens = list(prompt)
        for _ in range(6):
            starts = torch.tensor([0, len(tokens)], dtype=torch.int32)
            hidden = model.hidden(torch.tensor(tokens), torch.arange(len(tokens)), starts, 32)
            tokens.append(int(model.logits(hidden[-1:]).argmax()))
            if tokens[-1] == END_ID:
                tokens.pop()
                break
        assert answers[index].tokens.tolist() == tokens[len(prompt) :]


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
    geometry = replace(TINY, hidden_size=16, num_heads=1, intermediate_size=16)
    draft = train_draft(target, corpus, geometry, replace(QUICK, max_steps=60), progress=False)
    assert held_out_loss(draft, corpus, QUICK, device="cpu") < before


def test_guess_quality_replays_rounds() -> None:
    # Token 0 comes from the prefill; two accepted, recovery of rank 2 (hit); k accepted, recovery of rank 0 (hit);
    # none accepted, recovery of rank 9 (miss); the last round is cut by the end.
    ranks = [torch.tensor([5, 0, 0, 2, 0, 0, 0, 0, 9, 0])]
    quality = guess_quality(ranks, k=3, fan_out=3)
    assert (quality.rounds, quality.accepted, quality.hits) == (3, 5, 2)
    assert quality.accepted_by_length == [1, 0, 1, 1]
    assert quality.tokens_per_round == pytest.approx(5 / 3 + 1)


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
