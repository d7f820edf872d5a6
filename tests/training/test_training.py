"""Packing, the model against transformers, and what rounds are worth."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ssd_lab.models.config import ModelConfig
from ssd_lab.training.corpus import Corpus, microbatches
from ssd_lab.training.evaluate import guess_quality
from ssd_lab.training.hf_files import load_hf, save_hf
from ssd_lab.training.model import TrainableLlama, new_model

END_ID = 2
TINY = ModelConfig(
    model_type="llama", hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=16, mlp_size=48,
    vocab_size=64, max_positions=1024, tie_embeddings=True, eos_token_ids=(END_ID,), bos_token_id=0,
)  # fmt: skip


def toy_corpus(documents: int = 40) -> Corpus:
    """Documents that count upwards: easy to learn."""
    prompts = [[3, 5 + i % 7] for i in range(documents)]
    return Corpus.build(
        prompts, [[(6 + i % 7 + j) % 60 for j in range(10 + i % 5)] + [END_ID] for i in range(documents)]
    )


def test_the_config_counts_the_parameters() -> None:
    assert sum(p.numel() for p in TrainableLlama(TINY).parameters()) == TINY.num_parameters


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


def test_packed_documents_do_not_see_each_other_and_agree_with_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    first, second = torch.tensor([3, 9, 4, 11]), torch.tensor([7, 8, 2])
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    starts = torch.tensor([0, 4, 7, 7], dtype=torch.int32)  # the last, empty, sequence stands for padding
    save_hf(new_model(TINY, seed=0, device="cpu"), tmp_path)
    reloaded = load_hf(tmp_path, device="cpu", dtype=torch.float32)
    assert reloaded.config == TINY
    packed = reloaded.logits(reloaded.hidden(torch.cat([first, second]), positions, starts, 8))
    reference = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        for tokens, mine in ((first, packed[:4]), (second, packed[4:])):
            torch.testing.assert_close(mine, reference(tokens[None]).logits[0], atol=1e-5, rtol=1e-4)


def test_guess_quality_replays_rounds() -> None:
    # Token 0 comes from the prefill; two accepted, recovery of rank 2 (hit); k accepted, recovery of rank 0 (hit);
    # none accepted, recovery of rank 9 (miss); the last round is cut by the end.
    ranks = [torch.tensor([5, 0, 0, 2, 0, 0, 0, 0, 9, 0])]
    quality = guess_quality(ranks, k=3, fan_out=3)
    assert (quality.rounds, quality.accepted, quality.hits) == (3, 5, 2)
    assert quality.accepted_by_length == [1, 0, 1, 1]
    assert quality.tokens_per_round == pytest.approx(5 / 3 + 1)
