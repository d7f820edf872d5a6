"""One more family is a declaration and a block: a mixture of experts made here loads, runs and drafts like others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_models import random_tensors, tiny_config

import ssd_lab
from ssd_lab import demo
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.product import Product, whole
from ssd_lab.models.block_decoder import decoder_of_blocks
from ssd_lab.models.blocks import Block, GatedMlp, Mlp, Parts, read_attention, read_mlp
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.families import FAMILIES, Families, Family
from ssd_lab.models.families.llama import LLAMA
from ssd_lab.models.files.config_json import config_from_json
from ssd_lab.models.inflate.geometry import find_geometry
from ssd_lab.models.inflate.plan import plan_inflation
from ssd_lab.models.loader import load_model

EXPERTS = 3


@dataclass(frozen=True)
class Experts:
    """The likeliest expert of each row; all are computed, so that a row's bits do not depend on those beside it."""

    router: Linear
    experts: list[GatedMlp]

    def __call__(self, inputs: torch.Tensor, kernels: Kernels[Any]) -> Product:
        chosen = whole(self.router.unsummed(inputs)).argmax(-1)
        each = torch.stack([whole(expert(inputs, kernels)) for expert in self.experts])
        return each[chosen, torch.arange(len(chosen))]

    def linears(self) -> list[Linear]:
        return [self.router, *(linear for expert in self.experts for linear in expert.linears())]


def block(parts: Parts, prefix: str) -> Block:
    config = parts.config
    mlp: Mlp = Experts(
        parts.linear(parts.tensors.take(f"{prefix}mlp.gate.weight", config.extra["num_experts"], config.hidden_size)),
        [read_mlp(parts, f"{prefix}mlp.experts.{number}") for number in range(config.extra["num_experts"])],
    )
    return Block(
        parts.norm(f"{prefix}input_layernorm", config.hidden_size),
        read_attention(parts, prefix, config.hidden_size, output_bias=False),
        parts.norm(f"{prefix}post_attention_layernorm", config.hidden_size),
        mlp,
    )


def fields(data: Mapping[str, Any]) -> dict[str, Any]:
    count, hidden = data["num_experts"], data["hidden_size"]
    more = (count - 1) * 3 * hidden * data["intermediate_size"] + count * hidden
    return {"extra": {"num_experts": count}, "more_parameters": data["num_hidden_layers"] * more}


MIXTURE = Family(
    name="Mixture",
    model_type="mixture",
    architecture="MixtureForCausalLM",
    make_decoder=partial(decoder_of_blocks, make_block=block),
    entries=frozenset({"num_experts"}),
    fields=fields,
)


@pytest.fixture
def mixture(monkeypatch: pytest.MonkeyPatch) -> Family:
    monkeypatch.setattr(FAMILIES, "_by_type", dict(FAMILIES._by_type))
    return FAMILIES.register(MIXTURE)


def saved(folder: Path, seed: int = 0) -> Path:
    """A checkpoint with the bundled tokenizer."""
    vocab = json.loads((demo.TARGET / "config.json").read_text())["vocab_size"]
    config = tiny_config(vocab)
    tensors = random_tensors(config, seed)
    for layer in range(config.num_layers):
        at, generator = f"model.layers.{layer}.mlp.", torch.Generator().manual_seed(seed + layer)
        dense = {name: tensors.pop(name) for name in list(tensors) if name.startswith(at)}
        for name, weight in dense.items():
            for number in range(EXPERTS):
                noise = 1 + torch.randn(weight.shape, generator=generator)
                tensors[name.replace(at, f"{at}experts.{number}.")] = weight * noise
        tensors[f"{at}gate.weight"] = torch.randn(EXPERTS, config.hidden_size, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    shutil.copy(demo.TARGET / "tokenizer.json", folder)
    (folder / "config.json").write_text(json.dumps(entries(config)))
    return folder


def entries(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": "mixture", "architectures": ["MixtureForCausalLM"], "num_experts": EXPERTS,
        "hidden_size": config.hidden_size, "num_hidden_layers": config.num_layers, "vocab_size": config.vocab_size,
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim, "intermediate_size": config.mlp_size, "tie_word_embeddings": True,
        "max_position_embeddings": config.max_positions,
    }  # fmt: skip


def test_a_registered_family_loads_drafts_and_keeps_the_text(mixture: Family, tmp_path: Path) -> None:
    folder = saved(tmp_path / "mixture")
    model = load_model(folder, dtype="float32")
    stored = load_file(folder / "model.safetensors").values()
    assert model.config.num_parameters == sum(weight.numel() for weight in stored)
    assert len(model.decoder.linears()) == 1 + 2 * (2 + 1 + 2 * EXPERTS)
    run = partial(ssd_lab.run, ["one two three", "x = [1, 2"], target=model, max_tokens=12, ignore_eos=True)
    plain = run(strategy="autoregressive", chat=False, progress=False)
    drafted = run(strategy="sync_chain", draft=model, k=3, chat=False, progress=False)
    assert [output.token_ids for output in drafted.outputs] == [output.token_ids for output in plain.outputs]
    assert drafted.metrics.tokens_per_round > 3.5  # its own draft is always right


def test_a_draft_of_a_registered_family_works_here_whatever_the_link(mixture: Family, tmp_path: Path) -> None:
    """A process of its own would not know the family: `auto` takes a thread, and `process` is refused in words."""
    folder = str(saved(tmp_path / "mixture"))
    run = partial(ssd_lab.run, ["one two three"], target=folder, dtype="float32", max_tokens=8, ignore_eos=True)
    plain = run(strategy="autoregressive", chat=False, progress=False)
    drafted = run(strategy="async_tree", draft=folder, k=2, f=1, chat=False, progress=False)
    assert drafted.outputs[0].token_ids == plain.outputs[0].token_ids
    assert "degraded" not in drafted.trace.meta and drafted.metrics.tokens_per_round > 2
    with pytest.raises(ConfigError, match=r"draft_link='process' .* take thread or inline"):
        run(strategy="async_tree", draft=folder, k=2, f=1, chat=False, progress=False, draft_link="process")


def test_without_it_the_checkpoint_is_refused_with_the_families_there_are(tmp_path: Path) -> None:
    folder = saved(tmp_path / "mixture")
    with pytest.raises(ModelLoadError, match=r"'mixture' is not supported: llama, qwen3 are; .*MixtureForCausalLM"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "llama", "architectures": None}, "num_experts=3; take a plain Llama or Qwen3 or Mixture"),
        ({"router_scale": 2.0}, "router_scale"),
        ({"architectures": ["LlamaForCausalLM"]}, "only MixtureForCausalLM is"),
    ],
)
def test_what_a_family_reads_is_refused_for_the_others(mixture: Family, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelLoadError, match=says):
        config_from_json(entries(tiny_config(64)) | change)


def test_one_of_another_family_cannot_be_inflated() -> None:
    small = tiny_config(64, model_type="mixture")
    with pytest.raises(ModelLoadError, match="'mixture' cannot be inflated"):
        plan_inflation(small, find_geometry("llama-1b").config, "llama-1b")


def test_a_type_belongs_to_one_family() -> None:
    own = Families([LLAMA])
    assert own.register(LLAMA) is LLAMA and own.names == "Llama"
    with pytest.raises(ConfigError, match="'llama' is that of Llama already"):
        own.register(replace(LLAMA, name="Other"))
    with pytest.raises(ModelLoadError, match="architecture 'gemma' is not supported: llama are"):
        own.of_gguf("gemma", "a file")


def test_decoders_are_what_the_engine_asks_for() -> None:
    decoder: Decoder = load_model(demo.DRAFT, dtype="float32").decoder
    promised = {name for name in vars(Decoder) if not name.startswith("_")} | set(Decoder.__annotations__)
    assert all(hasattr(decoder, name) for name in promised)
