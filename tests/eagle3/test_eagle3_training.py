"""Training: what the unrolled head sees, that it learns, that it resumes, that what is saved drafts the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eagle3_counting import HEAD, RUN, TRAINING, VOCAB, documents

from ssd_lab.errors import ConfigError
from ssd_lab.training.corpus import Corpus
from ssd_lab.training.eagle3 import (
    frequent_tokens,
    target_reading,
    train_eagle3,
    unrolled_loss,
    usable_feature_layers,
)
from ssd_lab.training.eagle3_export import save_head
from ssd_lab.training.eagle3_measure import head_ranks
from ssd_lab.training.eagle3_model import HeadConfig, TrainableHead
from ssd_lab.training.hf_files import load_hf, save_hf
from ssd_lab.training.model import TrainableLlama
from ssd_lab.training.padded import batch_plan, padded_batch
from studies.bundled_models.head_check import largest_difference


@pytest.fixture(scope="module")
def target(counting: Any) -> TrainableLlama:
    return load_hf(counting.folder / "target", device="cpu", dtype=torch.float32)


def new_head(target: TrainableLlama, config: HeadConfig = HEAD) -> TrainableHead:
    head = TrainableHead(config, target.config)
    head.initialise(target, None, torch.Generator().manual_seed(3))
    return head


@torch.no_grad()
def test_a_row_of_a_later_step_sees_features_up_to_where_its_draft_began(target: TrainableLlama) -> None:
    """Step j of row i must not change with features after i or tokens after i + 1 + j, and must with those before."""
    tokens = torch.randint(8, 60, (1, 16), generator=torch.Generator().manual_seed(0))
    features = torch.randn(1, 16, 96, generator=torch.Generator().manual_seed(1))
    head, row, embedding = new_head(target), 6, target.model.embed_tokens.weight

    def rows(features: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
        return [normed[0, row] for normed in head.unrolled(features, tokens, embedding, 4)]

    before = rows(features, tokens)
    later_features = features.clone()
    later_features[:, row + 1 :] += 1
    assert all(torch.equal(a, b) for a, b in zip(before, rows(later_features, tokens), strict=True))
    earlier_features = features.clone()
    earlier_features[:, row - 2] += 1
    assert not any(torch.allclose(a, b) for a, b in zip(before, rows(earlier_features, tokens), strict=True))
    for step in range(4):
        changed = tokens.clone()
        changed[:, row + 1 + step] = 63
        after = rows(features, changed)
        assert all(torch.equal(before[j], after[j]) for j in range(step))
        assert not torch.allclose(before[step], after[step])


@torch.no_grad()
def test_unrolled_rows_are_what_drafting_one_by_one_gives(target: TrainableLlama, tmp_path: Path) -> None:
    """The paged head, loaded from the saved folder, against the unrolled one: also with a reduced vocabulary."""
    save_hf(target, tmp_path / "target")
    corpus = documents(20, seed=5)
    text = corpus.tokens[: corpus.starts[1]].tolist()
    for size in (None, 30):
        config = replace(HEAD, draft_vocab_size=size)
        ids = None if size is None else frequent_tokens(corpus, size, VOCAB)
        head = TrainableHead(config, target.config)
        head.initialise(target, ids, torch.Generator().manual_seed(4))
        for matrix in head.matrices():
            matrix.mul_(4)  # a fresh head attends to everything alike: a wrong mask would hardly show
        folder = tmp_path / f"head_{size}"
        save_head(head, target.config, ids, folder)
        assert largest_difference(head, folder, tmp_path / "target", text, num_steps=4) < 1e-3
        head.midlayer.self_attn.v_proj.weight.mul_(1.1)  # the check notices another head
        assert largest_difference(head, folder, tmp_path / "target", text, num_steps=4) > 1e-2


def held_out_right(target: TrainableLlama, head: TrainableHead) -> torch.Tensor:
    """How often each step is right on texts that were not trained on."""
    corpus = documents(40, seed=9)
    batch = padded_batch(corpus, np.arange(40), max_length=48, prompt_weight=0.0, device="cpu")
    with torch.no_grad():
        return unrolled_loss(head, target, batch, None, TRAINING, 0.0)[2]


@pytest.mark.full
def test_a_head_learns_to_draft_and_a_feature_one_layer_off_shows(target: TrainableLlama) -> None:
    head, _, records = train_eagle3(target, documents(120), HEAD, TRAINING, device="cpu", progress=False)
    assert records[-1]["loss_0"] < 0.5 * records[0]["loss_0"]
    right, untrained = held_out_right(target, head), held_out_right(target, new_head(target))
    assert (right > untrained + 0.3).all()
    head.config = replace(HEAD, feature_layers=(0, 1, 2))  # reads each one layer too early
    assert (held_out_right(target, head) < right - 0.08).all()


@pytest.mark.full
def test_later_steps_learn_only_when_they_are_unrolled(target: TrainableLlama) -> None:
    once = replace(TRAINING, unroll_steps=1)
    short, _, _ = train_eagle3(target, documents(120), HEAD, once, device="cpu", progress=False)
    long, _, _ = train_eagle3(target, documents(120), HEAD, TRAINING, device="cpu", progress=False)
    assert held_out_right(target, long)[2] > held_out_right(target, short)[2] + 0.05


class Stopped(Exception):
    """Stands for a kill."""


def test_an_interrupted_run_ends_as_if_it_had_not_been(target: TrainableLlama, tmp_path: Path) -> None:
    short = replace(TRAINING, run=replace(RUN, max_steps=11), acceptance_from=0.5)
    corpus = documents()

    def stop(step: int) -> None:
        if step == 6:
            raise Stopped

    whole, _, _ = train_eagle3(target, corpus, HEAD, short, device="cpu", progress=False)
    path = tmp_path / "head.pt"
    with pytest.raises(Stopped):
        train_eagle3(target, corpus, HEAD, short, device="cpu", checkpoint_path=path, progress=False, on_step=stop)
    seen: list[int] = []
    resumed, _, _ = train_eagle3(
        target, corpus, HEAD, short, device="cpu", checkpoint_path=path, progress=False, on_step=seen.append
    )
    assert seen == list(range(5, 12))  # from the checkpoint at 4
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ConfigError, match="other settings"):
        train_eagle3(target, documents(seed=1), HEAD, short, device="cpu", checkpoint_path=path, progress=False)


@torch.no_grad()
def test_ranks_are_those_of_drafting_from_each_place(target: TrainableLlama) -> None:
    """Replayed naively: for every place and number of drafted tokens, an unrolled forward over the text so far."""
    head, k = new_head(target), 2
    corpus = documents(2, seed=3)
    prompts = [corpus.tokens[a : a + 2].tolist() for a in corpus.starts[:-1]]
    answers = [corpus.tokens[a + 2 : b].tolist() for a, b in zip(corpus.starts, corpus.starts[1:], strict=False)]
    for prompt, answer, ranks in zip(prompts, answers, head_ranks(head, target, prompts, answers, k=k), strict=True):
        assert ranks.shape == (k + 1, len(answer))
        text = prompt + answer
        for place in range(3, len(answer)):
            for drafted in range(k + 1):
                last = len(prompt) + place - 1 - drafted  # the round's last committed token
                known = text[: len(prompt) + place]
                batch = padded_batch(
                    Corpus.build([known], [[0]]), np.array([0]), max_length=64, prompt_weight=0.0, device="cpu"
                )
                features, _ = target_reading(target, batch, HEAD.feature_layers)
                features[:, last:] = 1e3  # the target has not read its last token yet
                steps = list(head.unrolled(features, batch.tokens, target.model.embed_tokens.weight, drafted + 1))
                logits = head.logits(steps[drafted][0, last - 1], target.output_weight)
                assert int((logits > logits[answer[place]]).sum()) == int(ranks[drafted, place])


def test_a_draft_vocabulary_holds_the_answers_most_frequent_tokens() -> None:
    corpus = Corpus.build([[9, 9, 9, 9], [9]], [[5, 7, 7], [7, 3, 5, 2]])
    assert frequent_tokens(corpus, 2, 16).tolist() == [5, 7]
    assert frequent_tokens(corpus, 3, 16).tolist() == [2, 5, 7]  # 2 and 3 are as frequent: the lower one
    with pytest.raises(ConfigError, match="the target has 16"):
        frequent_tokens(corpus, 17, 16)


def test_batches_cover_each_document_once_a_pass() -> None:
    corpus = documents(50)
    plan, seen = batch_plan(corpus, size_tokens=256, max_length=48, seed=1), []
    while len(seen) < 50:
        chosen = next(plan)
        batch = padded_batch(corpus, chosen, max_length=48, prompt_weight=0.25, device="cpu")
        assert batch.tokens.numel() <= 256
        for row, document in enumerate(chosen):
            text = corpus.tokens[corpus.starts[document] : corpus.starts[document + 1]]
            length = min(48, len(text))
            assert batch.tokens[row, :length].tolist() == text[:length].tolist()
            assert batch.weights[row, 0] == 0.25 and (batch.weights[row, 1 : length - 1] == 1).all()
            assert (batch.weights[row, length - 1 :] == 0).all()
        seen += chosen.tolist()
    assert sorted(seen) == list(range(50))


@pytest.mark.parametrize(("layers", "read"), [(32, (2, 16, 29)), (7, (2, 3, 4)), (6, (2, 4, 6)), (2, (0, 1, 2))])
def test_small_targets_are_read_at_three_different_places(layers: int, read: tuple[int, ...]) -> None:
    assert usable_feature_layers(layers) == read
