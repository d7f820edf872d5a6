"""GGUF files that are split, of other versions or kinds: read, or refused with what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from test_models_gguf import VOCAB, logits_of
from testing_models import random_tensors, tiny_config, write_gguf

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.loader import from_tensors, load_model

CONFIG = tiny_config(VOCAB)


def write(path: Path, entries: dict[str, Any] | None = None, kind: str = "llama", **options: Any) -> Path:
    """A file of a tiny model with further entries of its architecture."""
    config = tiny_config(VOCAB, model_type=kind, qk_norm=kind == "qwen3")
    original = gguf.GGUFWriter.write_header_to_file

    def with_entries(writer: gguf.GGUFWriter, *arguments: Any, **rest: Any) -> None:
        for key, value in (entries or {}).items():
            _add(writer, key if key.startswith(("general.", "split.")) else f"{kind}.{key}", value)
        original(writer, *arguments, **rest)

    gguf.GGUFWriter.write_header_to_file = with_entries
    try:
        write_gguf(path, config, random_tensors(config), **options)
    finally:
        gguf.GGUFWriter.write_header_to_file = original
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"expert_count": 8, "expert_used_count": 2}, "llama.expert_count=8, llama.expert_used_count=2"),
        ({"attention.sliding_window": 64}, "llama.attention.sliding_window=64"),
        ({"attention.causal": False}, "attention.causal=False"),
        ({"attention.scale": 0.5}, "attention.scale=0.5"),
        ({"logit_scale": 0.0625}, "logit_scale=0.0625"),
        ({"residual_scale": 0.22}, "residual_scale"),
        ({"use_parallel_residual": True}, "use_parallel_residual=True"),
        ({"something.unheard_of": 3}, "something.unheard_of=3"),
        ({"rope.scaling.attn_factor": 0.5}, "rope.scaling.attn_factor=0.5"),
        ({"rope.dimension_count": 8}, "rope.dimension_count is 8 and a head has 16"),
        ({"attention.value_length": 8}, "attention.value_length is 8"),
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0}, "'longrope' is not supported"),
        ({"general.type": "adapter"}, "it holds 'adapter', not a model"),
    ],
)
def test_entries_that_change_the_function_are_refused(tmp_path: Path, entries: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "model.gguf", entries)
    with pytest.raises(ModelLoadError, match=says):
        load_model(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"expert_count": 0, "attention.causal": True, "vocab_size": VOCAB, "rope.dimension_count": 16},
        {"attention.sliding_window": 4096, "attention.scale": 1.0, "use_parallel_residual": False},
    ],
)
def test_entries_that_change_nothing_are_passed_over(tmp_path: Path, entries: dict[str, Any]) -> None:
    plain = load_model(write(tmp_path / "plain.gguf"), dtype="float32")
    assert torch.equal(logits_of(load_model(write(tmp_path / "more.gguf", entries), dtype="float32")), logits_of(plain))


@pytest.mark.parametrize(
    ("entries", "scaling"),
    [
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),  # llama.cpp's default kind
        ({"rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        ),
    ],
)
def test_scalings_of_rotation_are_read(tmp_path: Path, entries: dict[str, Any], scaling: dict[str, Any] | None) -> None:
    found = load_model(write(tmp_path / "model.gguf", entries), dtype="float32")
    expected = from_tensors(tiny_config(VOCAB, rope_scaling=scaling), random_tensors(CONFIG), dtype="float32")
    torch.testing.assert_close(logits_of(found), logits_of(expected), atol=1e-4, rtol=0)


def test_a_tensor_without_the_embedding_is_no_model(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    del tensors["model.embed_tokens.weight"]
    write_gguf(tmp_path / "part.gguf", CONFIG, tensors)
    with pytest.raises(ModelLoadError, match=r"lacks the tensor token_embd\.weight"):
        load_model(tmp_path / "part.gguf")


def split(path: Path, count: int) -> list[Path]:
    """The file in parts, as llama.cpp's gguf-split makes them: entries in the first, tensors spread over all."""
    reader = gguf.GGUFReader(path)
    parts = []
    for number in range(count):
        part = path.with_name(f"{path.stem}-{number + 1:05d}-of-{count:05d}.gguf")
        writer = gguf.GGUFWriter(str(part), "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        if number == 0:
            for key, field in reader.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    kind, sub = field.types[0], field.types[1] if len(field.types) > 1 else None
                    writer.add_key_value(key, field.contents(), kind, sub)
        for tensor in reader.tensors[number::count]:
            writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        parts.append(part)
    return parts


def test_a_split_file_is_one_model_by_any_of_its_parts(tmp_path: Path) -> None:
    whole = write(tmp_path / "model.gguf", kind="llama")
    parts = split(whole, 3)
    expected = logits_of(load_model(whole, dtype="float32"))
    for part in (parts[0], parts[2]):
        found = load_model(part, dtype="float32")
        assert torch.equal(logits_of(found), expected) and found.tokenizer is not None


def test_parts_that_are_missing_are_named(tmp_path: Path) -> None:
    parts = split(write(tmp_path / "model.gguf"), 3)
    parts[1].unlink()
    with pytest.raises(ModelLoadError, match=r"one of 3 parts, and model-00002-of-00003\.gguf are missing"):
        load_model(parts[0])
    renamed = parts[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelLoadError, match=r"keep the names that llama\.cpp gave them"):
        load_model(renamed)


def test_versions_two_and_three_are_read_and_others_named(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf")
    whole, expected = path.read_bytes(), logits_of(load_model(path, dtype="float32"))
    path.write_bytes(whole[:4] + (2).to_bytes(4, "little") + whole[8:])
    assert torch.equal(logits_of(load_model(path, dtype="float32")), expected)
    for version, says in ((1, "GGUF version 1, and 2 and 3 are read"), (4, "GGUF version 4")):
        path.write_bytes(whole[:4] + version.to_bytes(4, "little") + whole[8:])
        with pytest.raises(ModelLoadError, match=says):
            load_model(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page"),
        (b"tjgg\x03\x00\x00\x00" + bytes(64), "before GGUF"),
        (b"PK\x03\x04" + bytes(64), "no GGUF file"),
    ],
)
def test_files_that_are_something_else_are_told(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelLoadError, match=says):
        load_model(tmp_path / "model.gguf")


def test_the_other_byte_order_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "model.gguf"), "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("token_embd.weight", np.ones((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match="big-endian GGUF file"):
        load_model(tmp_path / "model.gguf")


def test_types_that_are_not_read_are_named_before_a_tensor_is(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.gguf", extra={"blk.0.odd.weight": torch.ones(4, 4, dtype=torch.float64)})
    with pytest.raises(ModelLoadError, match=r"not read: F64 \(such as blk\.0\.odd\.weight\); take a file in Q8_0"):
        load_model(path)


def test_a_type_from_the_future_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "model.gguf")

    def unknown(*_: Any) -> None:
        gguf.GGMLQuantizationType(250)

    monkeypatch.setattr(gguf.GGUFReader, "__init__", unknown)
    with pytest.raises(ModelLoadError, match=r"does not know .*update it"):
        load_model(path)


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"])
def test_usual_types_are_read(tmp_path: Path, kind: str) -> None:
    config = tiny_config(VOCAB, hidden_size=256, mlp_size=256)
    quantised = write_gguf(tmp_path / "model.gguf", config, random_tensors(config), kind)
    expected = from_tensors(config, quantised, dtype="float32")
    assert torch.equal(logits_of(load_model(tmp_path / "model.gguf", dtype="float32")), logits_of(expected))
