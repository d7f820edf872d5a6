"""The paged head gives, step by step, what an independent forward of it gives: every layout, every option."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from eagle3_checkpoints import (
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    VOCAB,
    head_tensors,
    write_safeailab,
    write_speculators,
)
from eagle3_reference import Reference

from ssd_lab.kernels.step_input import StepInput
from ssd_lab.models.eagle3.head import Eagle3Head
from ssd_lab.models.eagle3.loader import load_eagle3
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel

BLOCK = 4
TABLES = torch.tensor([[5, 2, 7, 3, 9, 1], [4, 8, 6, 10, 11, 12]])  # blocks in no order
LENGTH, STEPS = 7, 3


def step_at(tokens: torch.Tensor, start: int) -> StepInput:
    """Rows of both sequences at `start` and after it, each seeing all before it."""
    batch, rows = tokens.shape
    positions = (start + torch.arange(rows)).expand(batch, rows)
    slots = TABLES[:batch].gather(1, positions // BLOCK) * BLOCK + positions % BLOCK
    return StepInput(tokens, positions, slots, TABLES[:batch], positions + 1, start + rows)


def text(seed: int = 0, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, VOCAB, (batch, LENGTH + STEPS), generator=torch.Generator().manual_seed(seed))


def features(seed: int = 1, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, LENGTH, 3 * HIDDEN, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def paged(head: Eagle3Head, chunk: int = LENGTH) -> list[torch.Tensor]:
    """Logits of the rows that have features, in chunks, and of the steps that feed on the head's own states."""
    cache = PagedKVCache(head.config.layers, 16, BLOCK, torch.float32, "cpu")
    tokens, combined = text(), head.combine(features())
    results: list[torch.Tensor] = []
    for start in range(0, LENGTH, chunk):
        rows = slice(start, min(start + chunk, LENGTH))
        logits, carried = head.forward(step_at(tokens[:, rows], start), cache, combined[:, rows])
        results.append(logits)
    for step in range(STEPS):
        at = LENGTH + step
        logits, carried = head.forward(step_at(tokens[:, at : at + 1], at), cache, carried[:, -1:])
        results.append(logits)
    return [torch.cat(results, 1)[sequence] for sequence in range(2)]


def expected(reference: Reference) -> list[torch.Tensor]:
    results = []
    for tokens, parts in zip(text(), features(), strict=True):
        history: list[list[tuple]] = []
        logits = []
        carried = torch.empty(0)
        for position in range(LENGTH + STEPS):
            feature = reference.combine(list(parts[position].chunk(3))) if position < LENGTH else carried
            out, carried, history = reference.step(int(tokens[position]), feature, position, history)
            logits.append(out)
        results.append(torch.stack(logits))
    return results


def reference_for(target: LoadedModel, tensors: dict[str, torch.Tensor], theta: float, **options: bool) -> Reference:
    layers = sum(name.endswith("q_proj.weight") for name in tensors)
    return Reference(
        tensors, embedding=target.decoder.embedding, heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM, theta=theta,
        eps=1e-5, num_layers=layers, **options,
    )  # fmt: skip


def assert_same(head: Eagle3Head, reference: Reference) -> None:
    for ours, theirs in zip(paged(head), expected(reference), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_safeailab(target: LoadedModel, tmp_path: Path) -> None:
    tensors = head_tensors()
    head = load_eagle3(write_safeailab(tmp_path, tensors), target)
    assert_same(head, reference_for(target, tensors, theta=5000.0))  # the target's rotation, not the config's


def test_specforge_with_a_norm_for_each_feature_and_normed_states_carried_on(
    target: LoadedModel, tmp_path: Path
) -> None:
    tensors = head_tensors(fc_norm=True)
    head = load_eagle3(write_safeailab(tmp_path, tensors, fc_norm=True, norm_output=True), target)
    assert_same(head, reference_for(target, tensors, theta=5000.0, carry_normed=True))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("before_fc", [False, True])
def test_speculators(target: LoadedModel, tmp_path: Path, residual: bool, before_fc: bool) -> None:
    tensors = head_tensors(input_norm=before_fc)
    folder = write_speculators(tmp_path, tensors, norm_before_residual=residual, norm_before_fc=before_fc)
    head = load_eagle3(folder, target)
    assert_same(head, reference_for(target, tensors, theta=123.0, residual_after_norm=residual))  # its own rotation


def test_speculators_qwen3_head_with_two_layers(qwen_target: LoadedModel, tmp_path: Path) -> None:
    tensors = head_tensors(qk_norm=True, num_layers=2)
    folder = write_speculators(tmp_path, tensors, layer={"model_type": "qwen3", "num_hidden_layers": 2})
    head = load_eagle3(folder, qwen_target)
    assert_same(head, reference_for(qwen_target, tensors, theta=123.0))


def test_attention_biases(target: LoadedModel, tmp_path: Path) -> None:
    tensors = head_tensors(bias=True)
    head = load_eagle3(write_safeailab(tmp_path, tensors, attention_bias=True), target)
    assert_same(head, reference_for(target, tensors, theta=5000.0))


def test_a_head_with_the_whole_vocabulary_and_the_targets_output(target: LoadedModel, tmp_path: Path) -> None:
    tensors = head_tensors(whole_vocabulary=True)
    del tensors["lm_head.weight"]
    head = load_eagle3(write_safeailab(tmp_path, tensors), target)
    tensors["lm_head.weight"] = target.decoder.embedding  # the target's embedding is its output head too
    assert_same(head, reference_for(target, tensors, theta=5000.0))


def test_an_embedding_of_its_own(target: LoadedModel, tmp_path: Path) -> None:
    tensors = head_tensors()
    own = torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(9))
    head = load_eagle3(write_safeailab(tmp_path, {**tensors, "embed_tokens.weight": own}), target)
    reference = reference_for(target, tensors, theta=5000.0)
    reference.embedding = own
    assert_same(head, reference)


def without_residual(reference: Reference) -> None:
    reference.residual_after_norm = True


def with_normed_carry(reference: Reference) -> None:
    reference.carry_normed = True


def with_other_rotation(reference: Reference) -> None:
    reference.theta = 123.0


@pytest.mark.parametrize("plant", [without_residual, with_normed_carry, with_other_rotation])
def test_the_comparison_notices_a_wrong_forward(
    target: LoadedModel, tmp_path: Path, plant: Callable[[Reference], None]
) -> None:
    tensors = head_tensors()
    reference = reference_for(target, tensors, theta=5000.0)
    plant(reference)
    with pytest.raises(AssertionError):
        assert_same(load_eagle3(write_safeailab(tmp_path, tensors), target), reference)


def test_bits_do_not_depend_on_the_number_of_rows(target: LoadedModel, tmp_path: Path) -> None:
    head = load_eagle3(write_safeailab(tmp_path, head_tensors()), target)
    assert head.row_padding.invariant
    whole = paged(head)
    for chunk in (1, 2, 5):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(paged(head, chunk), whole, strict=True))
