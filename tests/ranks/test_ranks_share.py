"""A model's parts, put together, compute what the whole one does."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_in_threads import on_every_rank
from testing_models import random_tensors, tiny_config, write_gguf

from ssd_lab import demo
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.assemble import assemble
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.weights import MappingWeights
from ssd_lab.models.group import Group
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.models.share import allowed_sizes, check_sizes, parameters_of_share, share_of
from ssd_lab.ranks.lone_rank import LoneRank
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner

pytestmark = pytest.mark.grid(full=5)  # each case starts processes of its own

CPU = torch.device("cpu")
IDS = torch.randint(0, 250, (1, 20), generator=torch.Generator().manual_seed(3))
KINDS: dict[str, dict[str, Any]] = {
    "tied": {},
    "with a head of its own": {"tie_embeddings": False},
    "a vocabulary that no number of ranks divides": {"vocab_size": 257, "tie_embeddings": False},
    "norms of heads": {"model_type": "qwen3", "qk_norm": True},
    "biases": {"attention_bias": True},
    "one head of K and V": {"num_kv_heads": 1},
}


def tensors_of(config: ModelConfig) -> dict[str, torch.Tensor]:
    """Random ones, with biases where the config has them."""
    tensors = random_tensors(config)
    if config.attention_bias:
        generator = torch.Generator().manual_seed(8)
        for name in [each for each in tensors if "self_attn." in each and each.endswith("_proj.weight")]:
            tensors[name.replace("weight", "bias")] = torch.randn(len(tensors[name]), generator=generator)
    return tensors


@torch.inference_mode()
def logits(decoder: Any) -> torch.Tensor:
    runner = StepRunner(decoder, PagedKVCache(decoder.config, 8, 8, torch.float32, CPU), CPU)
    first = runner.logits(causal_step_at(IDS[:, :13], [0], [[5, 3, 1]], 8))
    return torch.cat([first, runner.logits(causal_step_at(IDS[:, 13:], [13], [[5, 3, 1]], 8))], 1)


def parts_and_whole(size: int, load: Callable[[Group | None], Any]) -> tuple[list[torch.Tensor], torch.Tensor]:
    return on_every_rank(size, lambda group: logits(load(group))), logits(load(None))


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_together_compute_what_the_whole_does(kind: str, size: int) -> None:
    config = tiny_config(**{"vocab_size": 256, **KINDS[kind]})
    tensors = tensors_of(config)

    def load(group: Group | None) -> Any:
        options: dict[str, Any] = {"dtype": torch.float32, "device": CPU, "source": "test"}
        return assemble(config, MappingWeights(tensors), group=group, **options)

    parts, whole = parts_and_whole(size, load)
    assert all(torch.equal(part, parts[0]) for part in parts)
    torch.testing.assert_close(parts[0], whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["safetensors", "gguf", pytest.param("inflated", marks=pytest.mark.full)])
def test_each_rank_reads_its_part_of_a_file(kind: str, tmp_path: Path) -> None:
    source = {"safetensors": str(demo.TARGET), "inflated": "inflated:smollm2-135m:bundled-draft"}.get(kind)
    if source is None:
        config = tiny_config(vocab_size=320, tie_embeddings=False)
        write_gguf(tmp_path / "model.gguf", config, random_tensors(config))
        source = str(tmp_path / "model.gguf")

    def load(group: Group | None) -> Any:
        return load_model(source, dtype="float32", group=group).decoder

    parts, whole = parts_and_whole(3 if kind == "inflated" else 2, load)
    torch.testing.assert_close(parts[1], whole, atol=3e-4, rtol=1e-4)


def test_a_rank_holds_its_part_only() -> None:
    whole = load_model(str(demo.TARGET), dtype="float32")
    parts: list[LoadedModel] = on_every_rank(
        4, lambda group: load_model(str(demo.TARGET), dtype="float32", group=group)
    )
    config = share_of(whole.config, 4)
    assert [part.config for part in parts] == [config] * 4 and (config.num_heads, config.num_kv_heads) == (2, 1)
    embedding = whole.decoder.embedding.numel()
    counted = sum(linear.out_features * linear.in_features for linear in parts[3].decoder.linears()) + embedding
    norms = (2 * config.num_layers + 1) * config.hidden_size
    assert counted + norms == parameters_of_share(config, 4)
    assert parameters_of_share(config, 4) - embedding < 0.31 * (whole.config.num_parameters)


def test_uneven_heads_are_refused_with_the_numbers_that_are_allowed() -> None:
    config = tiny_config(vocab_size=64, num_heads=12, num_kv_heads=4, mlp_size=132)
    assert allowed_sizes(config) == [1, 2, 4, 12]
    words = "by 3 devices: it has 12 heads, 4 K/V heads and an MLP of 132, which 1, 2, 4, 12 divide"
    with pytest.raises(ConfigError, match=f"model cannot be shared {re.escape(words)}"):
        check_sizes(config, 3, "model")


def test_a_tensor_of_another_shape_than_the_configs_is_no_part() -> None:
    config = tiny_config(vocab_size=64)
    tensors = tensors_of(dataclasses.replace(config, mlp_size=256))

    def load(group: Group) -> None:
        with pytest.raises(ModelLoadError, match=r"gate_proj.weight has shape \[128, 64\].* asks for \[64, 64\]"):
            assemble(config, MappingWeights(tensors), dtype=torch.float32, device=CPU, source="test", group=group)

    on_every_rank(2, load)


@torch.inference_mode()
def test_a_rank_without_the_others_has_its_part_and_logits_of_every_token() -> None:
    config = tiny_config(vocab_size=256, tie_embeddings=False)
    tensors = tensors_of(config)

    def load(group: Group | None) -> Any:
        options: dict[str, Any] = {"dtype": torch.float32, "device": CPU, "source": "test"}
        return assemble(config, MappingWeights(tensors), group=group, **options)

    def sizes(decoder: Any) -> list[int]:
        return [linear.bytes for linear in decoder.linears()]

    lone, in_company = load(LoneRank(2)), on_every_rank(2, lambda group: sizes(load(group)))
    assert sizes(lone) == in_company[0] == [size // 2 for size in sizes(load(None))]
    found = logits(lone)
    assert found.shape == logits(load(None)).shape and torch.isfinite(found).all()
    own = torch.ones(3, 4)
    group = LoneRank(2)
    assert group.total(own) is own and group.unmade(own) is own and group.agreed(own) is own, "nothing is summed"
