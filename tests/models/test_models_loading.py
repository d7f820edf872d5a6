"""Checkpoints load, or say what is wrong with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from ssd_lab.errors import DraftMismatchError, ModelLoadError
from ssd_lab.llm import LLM
from ssd_lab.models.compatibility import check_draft
from ssd_lab.models.files.config_json import config_from_json
from ssd_lab.models.loader import from_tensors, load_model, resolve_dtype
from ssd_lab.models.text.tokenizer import Tokenizer
from ssd_lab.settings import settings


@pytest.fixture
def folder(tiny_pair, tmp_path: Path) -> Path:
    """A copy of the tiny target, to break."""
    return Path(shutil.copytree(tiny_pair.target, tmp_path / "model"))


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_tensors(folder: Path, drop: str | None = None, add: dict[str, torch.Tensor] | None = None) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(drop, None)
    save_file({**tensors, **(add or {})}, folder / "model.safetensors")


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no config"):
        load_model(tmp_path)


def test_a_name_that_is_nothing_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="neither a folder"):
        load_model("not/a/hub/id/at all")


def test_a_missing_gguf_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="does not exist"):
        load_model(tmp_path / "absent.gguf")


def test_a_damaged_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03\x00\x00\x00 not really")
    with pytest.raises(ModelLoadError, match="truncated or no GGUF"):
        load_model(tmp_path / "bad.gguf")


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="has neither model"):
        load_model(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="model-00002-of-00002"):
        load_model(folder)


def test_a_truncated_weight_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="truncated or damaged"):
        load_model(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_tensors(folder, drop="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelLoadError, match=r"lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder)


def test_a_left_over_tensor_is_named(folder: Path) -> None:
    edit_tensors(folder, add={"model.layers.9.extra": torch.zeros(2)})
    with pytest.raises(ModelLoadError, match=r"does not explain: model\.layers\.9\.extra"):
        load_model(folder)


def test_a_misshapen_tensor_is_named(folder: Path) -> None:
    edit_config(folder, intermediate_size=64)
    with pytest.raises(ModelLoadError, match=r"gate_proj.* has shape \[128, 64\], and the config asks for \[64, 64\]"):
        load_model(folder)


def test_another_architecture_is_refused(folder: Path) -> None:
    edit_config(folder, model_type="mamba")
    with pytest.raises(ModelLoadError, match="'mamba' is not supported: llama, qwen3 are"):
        load_model(folder)


def test_an_unknown_rope_scaling_is_refused(folder: Path) -> None:
    edit_config(folder, rope_scaling={"rope_type": "longrope", "factor": 4.0})
    with pytest.raises(ModelLoadError, match="'longrope' is not supported"):
        load_model(folder)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="'int3' is not known: auto, float32"):
        resolve_dtype("int3", "cpu")


def test_a_draft_of_another_size_is_refused_where_no_tokenizer_tells_that_it_is_padding(
    tiny_pair, folder: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, folder / "model.safetensors")
    edit_config(folder, vocab_size=258)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DraftMismatchError, match="258 token ids and the target 259"):
        check_draft(load_model(tiny_pair.target), load_model(folder))


def test_a_draft_with_other_pieces_is_refused_and_the_ids_named(tiny_pair, folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.replace("<|user|>", "<|human|>"), encoding="utf-8")
    with pytest.raises(DraftMismatchError, match=r"1 ids differ: id 256 is '<\|user\|>'.* '<\|human\|>'"):
        check_draft(load_model(tiny_pair.target), load_model(folder))


def test_a_model_can_be_made_from_tensors_in_memory(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    model = from_tensors(config_from_json(json.loads((folder / "config.json").read_text())), tensors)
    assert model.source is None
    assert model.config.num_parameters == sum(tensor.numel() for tensor in tensors.values())


@pytest.mark.parametrize("named_by", ["the hub's own setting", "SSD_HF_CACHE"])
def test_a_hub_snapshot_in_the_cache_is_found_without_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    snapshot = cache / "models--someone--tiny" / "snapshots" / "abc123"
    shutil.copytree(folder, snapshot)
    (cache / "models--someone--tiny" / "refs").mkdir()
    (cache / "models--someone--tiny" / "refs" / "main").write_text("abc123")
    if named_by == "SSD_HF_CACHE":
        monkeypatch.setenv("SSD_HF_CACHE", str(cache))
        settings.cache_clear()
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    try:
        assert load_model("someone/tiny").config.vocab_size == 259
    finally:
        settings.cache_clear()


@pytest.mark.parametrize(("chat", "begins"), [(False, True), (True, False)])
def test_plain_text_begins_with_what_its_tokenizer_adds_and_chat_text_does_not(
    tiny_pair, chat: bool, begins: bool
) -> None:
    model = load_model(tiny_pair.target)
    assert model.tokenizer is not None
    backend = tokenizers.Tokenizer.from_file(str(Path(tiny_pair.target) / "tokenizer.json"))
    first = backend.id_to_token(65)
    backend.post_processor = TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 65)])
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with LLM(
        replace(model, tokenizer=Tokenizer(backend, chat_template=template)),
        strategy="autoregressive",
        chat=chat,
        progress=False,
    ) as llm:
        plain = backend.encode("hello", add_special_tokens=False).ids
        assert llm.encode("hello") == ([65, *plain] if begins else plain)
