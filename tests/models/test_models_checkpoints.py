"""Folders that cannot be loaded say what they are, before weights are read, and what to take instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files import weights
from ssd_lab.models.loader import load_model
from ssd_lab.models.opened import shape_of

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tiny_pair, tmp_path: Path) -> Path:
    """A copy of the tiny target, to change."""
    return Path(shutil.copytree(tiny_pair.target, tmp_path / "model"))


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def rewrite(folder: Path, change: Any) -> None:
    """Replace every matrix of the layers by what `change` makes of its name and tensor."""
    tensors: Tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        tensors |= change(name, tensor) if name.endswith("_proj.weight") else {name: tensor}
    save_file(tensors, folder / "model.safetensors")


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}, "AWQ, 4 bits"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "GPTQ, 8 bits"),
    ({"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}, "FP8"),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes, 4 bits"),
    ({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {}}}, "compressed-tensors"),
    ({"quantization_config": {"quant_method": "mxfp4"}}, "MXFP4"),
    ({"quantization_config": {"quant_method": "something-new"}}, "something-new"),
    ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ({"quantization": {"group_size": 64, "bits": 4}}, "MLX, 4 bits"),
]


@pytest.mark.parametrize(("entry", "named"), CONFIGS)
def test_a_quantised_checkpoint_is_named_before_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any], named: str
) -> None:
    edit_config(folder, **entry)
    monkeypatch.setattr(weights, "safe_open", lambda *_, **__: pytest.fail("weights were opened"))
    for load in (load_model, lambda place: shape_of(place, dtype="auto", device=torch.device("cpu"))):
        with pytest.raises(ModelLoadError, match=rf"quantised \({named}.*take the checkpoint in bfloat16"):
            load(folder)


def gptq(name: str, tensor: torch.Tensor) -> Tensors:
    stem = name.removesuffix(".weight")
    return {f"{stem}.qweight": torch.zeros(8, 8, dtype=torch.int32), f"{stem}.scales": torch.ones(1, tensor.shape[0])}


def fp8(name: str, tensor: torch.Tensor) -> Tensors:
    return {name: tensor.to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1, 1)}


def plain_fp8(name: str, tensor: torch.Tensor) -> Tensors:
    return {name: tensor.to(torch.float8_e4m3fn)}


def bitsandbytes(name: str, tensor: torch.Tensor) -> Tensors:
    return {name: torch.zeros(tensor.numel() // 2, 1, dtype=torch.uint8), f"{name}.absmax": torch.zeros(4)}


def int8(name: str, tensor: torch.Tensor) -> Tensors:
    return {name: tensor.to(torch.int8), f"{name}_scale": torch.ones(1)}


def mlx(name: str, tensor: torch.Tensor) -> Tensors:
    stem = name.removesuffix(".weight")
    return {name: torch.zeros(8, 8, dtype=torch.uint32), f"{stem}.biases": torch.ones(tensor.shape[0], 1)}


@pytest.mark.parametrize(
    ("method", "named"),
    [
        (gptq, "AWQ or GPTQ"), (fp8, "FP8; .*F8_E4M3"), (plain_fp8, "F8_E4M3"), (bitsandbytes, "bitsandbytes; .*U8"),
        (int8, "I8"), (mlx, "MLX; .*U32"),
    ],
)  # fmt: skip
def test_quantised_weights_are_named_where_the_config_is_silent(folder: Path, method: Any, named: str) -> None:
    rewrite(folder, method)
    with pytest.raises(ModelLoadError, match=rf"quantised weights \(.*{named}.*take the checkpoint in bfloat16"):
        load_model(folder)


def test_a_mixture_of_float_types_is_one_model(folder: Path) -> None:
    types = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    rounded = {n: t.to(torch.bfloat16).float() for n, t in load_file(folder / "model.safetensors").items()}
    mixed = {name: tensor.to(types[i % 4]) for i, (name, tensor) in enumerate(rounded.items())}
    save_file(mixed, folder / "model.safetensors")
    found = load_model(folder, dtype="float32", pack=False).decoder
    save_file(rounded, folder / "model.safetensors")
    expected = load_model(folder, dtype="float32", pack=False).decoder
    rows = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(found.linears(), expected.linears(), strict=True):
        if ours.in_features == 64:
            torch.testing.assert_close(ours(rows), theirs(rows), atol=2e-2, rtol=1e-2)


OTHER_FOLDERS: list[tuple[dict[str, str], str]] = [
    ({"pytorch_model.bin": ""}, r"pickled \(pytorch_model.bin\), and only safetensors"),
    ({"pytorch_model-00001-of-00002.bin": "", "pytorch_model.bin.index.json": "{}"}, "pickled"),
    ({"consolidated.00.pth": ""}, "pickled"),
    ({"model-00001-of-00002.safetensors": ""}, "no index that says what belongs to it"),
    ({"adapter_model.safetensors": "", "adapter_config.json": "{}"}, "adapter .LoRA.; merge it"),
    ({"model-Q4_K_M.gguf": ""}, "give the path of one, such as .*model-Q4_K_M.gguf"),
    ({"consolidated.safetensors": ""}, "a checkpoint of transformers is expected"),
    ({}, "weights were not downloaded"),
]


@pytest.mark.parametrize(("files", "says"), OTHER_FOLDERS)
def test_a_folder_of_another_kind_is_told_what_it_is(folder: Path, files: dict[str, str], says: str) -> None:
    (folder / "model.safetensors").unlink()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(ModelLoadError, match=says):
        load_model(folder)


def test_links_without_their_files_are_told(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.unlink()
    file.symlink_to(folder / "gone")
    with pytest.raises(ModelLoadError, match=r"a link to a file that is gone"):
        load_model(folder)
    file.unlink()
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "gone")
    with pytest.raises(ModelLoadError, match=r"no config\.json: config\.json is a link to a file that is gone"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_git_lfs_left_is_told(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n")
    with pytest.raises(ModelLoadError, match="git lfs pull"):
        load_model(folder)


def test_a_damaged_config_is_told(folder: Path) -> None:
    for text in ('{"model_type": "lla', "[]"):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelLoadError, match="download it again"):
            load_model(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/no/such/folder", "the folder /no/such/folder does not exist"),
        ("./nothing", "the folder nothing does not exist"),
        ("{folder}/model.safetensors", "is a file: give the checkpoint's folder"),
        ("{folder}/nothing.gguf", "does not exist: give the path of a .gguf file"),
    ],
)
def test_a_path_is_not_taken_for_a_hub_id(folder: Path, name: str, says: str) -> None:
    with pytest.raises(ModelLoadError, match=says):
        load_model(name.format(folder=folder))


def test_a_second_output_head_of_a_tied_model_is_no_secret(folder: Path) -> None:
    edit_config(folder, tie_word_embeddings=True)
    with pytest.raises(ModelLoadError, match=r"lm_head\.weight is another: set tie_word_embeddings to false"):
        load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    assert load_model(folder).config.tie_embeddings


def test_a_missing_output_head_says_how_to_tie_it(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"lacks the tensor lm_head\.weight: .* set tie_word_embeddings to true"):
        load_model(folder)
    edit_config(folder, tie_word_embeddings=True)
    assert load_model(folder).config.tie_embeddings


def test_names_of_a_part_of_another_model_are_told(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("model."): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"lacks the tensor model\.embed_tokens\.weight: it has embed_tokens"):
        load_model(folder)


def test_old_rotary_tables_are_passed_over_and_unknown_biases_are_not(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    rotary = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file({**tensors, **rotary}, folder / "model.safetensors")
    load_model(folder)
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}
    save_file({**tensors, **bias}, folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"does not explain: model\.layers\.0\.self_attn\.q_proj\.bias"):
        load_model(folder)


def test_a_wrong_shape_is_named_with_its_file(folder: Path) -> None:
    edit_config(folder, intermediate_size=64)
    with pytest.raises(
        ModelLoadError, match=r"model\.safetensors: tensor model\.layers\.0\.mlp\.gate_proj\.weight has"
    ):
        load_model(folder)
