"""Which layers, which tokens: what a head's config and tensors mean, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from eagle3_checkpoints import (
    DRAFT_VOCAB,
    HIDDEN,
    VOCAB,
    head_tensors,
    shape,
    write_safeailab,
    write_speculators,
)
from safetensors.torch import load_file, save_file

from ssd_lab.errors import DraftMismatchError, ModelLoadError
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.models.eagle3.loader import load_eagle3
from ssd_lab.models.eagle3.vocabulary import DraftVocabulary
from ssd_lab.models.loader import LoadedModel

AUX = "eagle_aux_hidden_state_layer_ids"


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({}, (2, 3, 3)),  # 2, L // 2, L - 3 of six
        ({AUX: [1, 3, 5]}, (1, 3, 5)),  # vLLM and speculators count layer inputs
        ({"eagle_config": {AUX: [1, 2, 4]}}, (2, 3, 5)),  # SGLang and SpecForge count outputs
        ({AUX: [1, 3, 6]}, (1, 3, 6)),  # the input of the final norm
    ],
)
def test_the_layers_that_are_read(target: LoadedModel, config: dict[str, Any], layers: tuple[int, ...]) -> None:
    assert Eagle3Config.from_hf(shape(**config), target.config).feature_layers == layers


def test_the_defaults_of_a_llama_8b(target: LoadedModel) -> None:
    from dataclasses import replace

    config = Eagle3Config.from_hf(shape(), replace(target.config, num_layers=32))
    assert config.feature_layers == (2, 16, 29)


def test_switches_may_be_in_eagle_config(target: LoadedModel) -> None:
    config = Eagle3Config.from_hf(shape(eagle_config={"norm_before_fc": True}), target.config)
    assert config.norm_before_fc and not config.norm_before_residual


def test_a_pickled_checkpoint_loads_too(target: LoadedModel, tmp_path: Path) -> None:
    folder = write_safeailab(tmp_path, head_tensors())
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert load_eagle3(folder, target).vocabulary.size == DRAFT_VOCAB


def test_draft_tokens_go_to_the_target_tokens_that_t2d_marks(target: LoadedModel, tmp_path: Path) -> None:
    tensors = head_tensors()
    vocabulary = load_eagle3(write_safeailab(tmp_path, tensors), target).vocabulary
    marked = tensors["t2d"].nonzero().flatten()
    assert torch.equal(vocabulary.to_target(torch.arange(DRAFT_VOCAB)), marked)
    probs = torch.rand(3, 2, DRAFT_VOCAB).softmax(-1)
    spread = vocabulary.scatter_probs(probs)
    assert torch.equal(spread[..., marked], probs)
    assert spread[..., ~tensors["t2d"]].count_nonzero() == 0
    logits = vocabulary.scatter_logits(10 * torch.randn(4, DRAFT_VOCAB))
    assert torch.isfinite(logits).all()
    for temperature in (0.01, 1.0, 100.0):
        assert (logits / temperature).softmax(-1)[..., ~tensors["t2d"]].count_nonzero() == 0


def test_a_vocabulary_that_lists_every_token_is_the_whole_one() -> None:
    vocabulary = DraftVocabulary.from_offsets(torch.zeros(7, dtype=torch.int64), 7, source="test")
    assert vocabulary.is_whole and vocabulary.size == 7
    values = torch.rand(2, 7)
    assert torch.equal(vocabulary.scatter_logits(values), values)


def without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def remove(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    return remove


def twice(tensors: dict[str, torch.Tensor]) -> None:
    tensors["d2t"][1] = tensors["d2t"][0] - 1


def outside(tensors: dict[str, torch.Tensor]) -> None:
    tensors["d2t"][-1] = VOCAB


def absolute_ids(tensors: dict[str, torch.Tensor]) -> None:
    tensors["d2t"] += torch.arange(DRAFT_VOCAB)


def other_marks(tensors: dict[str, torch.Tensor]) -> None:
    tensors["t2d"] = ~tensors["t2d"]


def surplus(tensors: dict[str, torch.Tensor]) -> None:
    tensors["midlayer.self_attn.extra.weight"] = torch.zeros(2)


def misshapen(tensors: dict[str, torch.Tensor]) -> None:
    tensors["fc.weight"] = torch.zeros(HIDDEN, 2 * HIDDEN)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("midlayer.hidden_norm.weight"), "no EAGLE3 head"),
        (without("fc.weight"), "lacks the tensor fc.weight"),
        (without("d2t"), "lacks the tensor d2t"),
        (without("lm_head.weight"), "lacks the tensor lm_head.weight"),
        (twice, "two draft ids"),
        (outside, "offsets"),
        (absolute_ids, "d2t"),
        (other_marks, "t2d and d2t"),
        (surplus, "does not explain"),
        (misshapen, "fc.weight has shape"),
    ],
)
def test_a_damaged_checkpoint_says_what_is_wrong(
    target: LoadedModel, tmp_path: Path, damage: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    folder = write_safeailab(tmp_path, head_tensors())
    tensors = load_file(folder / "model.safetensors")
    damage(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=message):
        load_eagle3(folder, target)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": VOCAB + 1}, "token ids"),
        ({"target_hidden_size": 32}, "features of size 32"),
        ({AUX: [1, 3, 7]}, r"layers \[1, 3, 7\]"),
    ],
)
def test_a_head_of_another_target_is_refused(
    target: LoadedModel, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(DraftMismatchError, match=message):
        load_eagle3(write_safeailab(tmp_path, head_tensors(), **config), target)


def test_other_speculators_and_unreadable_folders_are_refused(target: LoadedModel, tmp_path: Path) -> None:
    other = write_speculators(tmp_path / "other", head_tensors(), speculators_model_type="mlp")
    with pytest.raises(ModelLoadError, match="only eagle3 heads"):
        load_eagle3(other, target)
    tensors = head_tensors(fc_norm=True, input_norm=True)
    both = write_speculators(tmp_path / "both", tensors, norm_before_fc=True, fc_norm=True)
    with pytest.raises(ModelLoadError, match="exclude each other"):
        load_eagle3(both, target)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        load_eagle3(tmp_path / "empty", target)
    (tmp_path / "empty" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelLoadError, match="damaged"):
        load_eagle3(tmp_path / "empty", target)
    (tmp_path / "empty" / "config.json").write_text(json.dumps(shape()), encoding="utf-8")
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"not an archive")
    with pytest.raises(ModelLoadError, match="damaged"):
        load_eagle3(tmp_path / "empty", target)
