"""Published shapes have the published numbers of parameters, and small models fit where they must."""

from __future__ import annotations

import dataclasses

import pytest

from ssd_lab import demo
from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.checkpoint import read_config
from ssd_lab.models.inflate.geometry import GEOMETRIES, find_geometry
from ssd_lab.models.inflate.plan import InflationPlan, plan_inflation

PUBLISHED = {  # from the models' pages on the hub
    "llama-1b": 1_235_814_400,
    "llama-3b": 3_212_749_824,
    "llama-8b": 8_030_261_248,
    "llama-70b": 70_553_706_496,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "smollm2-135m": 134_515_008,
}
TARGET, DRAFT = read_config(demo.TARGET), read_config(demo.DRAFT)
SMOLLM2 = find_geometry("smollm2-135m").config


def plan(small: ModelConfig, name: str) -> InflationPlan:
    return plan_inflation(small, find_geometry(name).config, name)


def test_parameters_are_those_published() -> None:
    assert {name: geometry.num_parameters for name, geometry in GEOMETRIES.items()} == PUBLISHED


def test_a_step_reads_all_weights_but_an_untied_embedding() -> None:
    tied, untied = find_geometry("llama-1b"), find_geometry("Llama-8B")
    assert tied.step_bytes == tied.bytes == 2 * tied.num_parameters
    assert untied.bytes - untied.step_bytes == 2 * 128256 * 4096


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelLoadError, match=r"'llama-9b' is not known: there are llama-1b, .*qwen3-32b"):
        find_geometry("llama-9b")


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "smollm2-135m"])
@pytest.mark.parametrize("small", [TARGET, DRAFT], ids=["target", "draft"])
def test_the_bundled_models_fit_everywhere(small: ModelConfig, name: str) -> None:
    made = plan(small, name)
    shape = find_geometry(name).config
    for field in ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_size", "vocab_size"):
        assert getattr(made.config, field) == getattr(shape, field), field
    assert made.config.tie_embeddings == shape.tie_embeddings
    check_places(made)


@pytest.mark.parametrize("name", ["llama-8b", "llama-70b", "qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b"])
def test_smollm2_fits_where_there_are_thirty_layers(name: str) -> None:
    check_places(plan(SMOLLM2, name))


def check_places(made: InflationPlan) -> None:
    """Each small layer and query head is there once, in order, and finds its own K/V head."""
    assert [layer for layer in made.layers if layer is not None] == list(range(made.small.num_layers))
    heads = [head for head in made.query_heads if head is not None]
    assert heads == list(range(made.small.num_heads))
    group = made.config.num_heads // made.config.num_kv_heads
    for place, head in enumerate(made.query_heads):
        if head is not None:
            assert made.kv_heads[place // group] == head * made.small.num_kv_heads // made.small.num_heads


def test_layers_are_spread_evenly() -> None:
    layers = plan(TARGET, "llama-8b").layers
    assert [index for index, layer in enumerate(layers) if layer is not None] == [0, 5, 10, 16, 21, 26]


def test_copies_of_the_residual_stream_make_the_norm_factor_a_power_of_two() -> None:
    factors = {name: plan(TARGET, name).residual for name in ("llama-1b", "llama-3b", "llama-8b", "qwen3-32b")}
    assert {name: (each.norm_scale, each.scales) for name, each in factors.items()} == {
        "llama-1b": (0.5, ()),  # 2048 / 512 = 4
        "llama-3b": (0.5, (0.5, 0.5)),  # 6 = 4 * (1 + 1/4 + 1/4)
        "llama-8b": (0.5, (1.0,)),  # 8 = 4 * (1 + 1)
        "qwen3-32b": (0.5, (1.0, 0.5, 0.5)),  # 10 = 4 * (1 + 1 + 1/4 + 1/4)
    }
    uneven = plan(SMOLLM2, "llama-8b").residual  # 4096 / 576 = 64 / 9
    assert uneven.scales == () and uneven.norm_scale == pytest.approx(0.375)
    assert not plan(SMOLLM2, "llama-8b").copies_exactly


@pytest.mark.parametrize("small", [TARGET, DRAFT, SMOLLM2], ids=["target", "draft", "smollm2"])
def test_epsilon_and_the_constant_make_up_for_the_wider_mean(small: ModelConfig) -> None:
    for name in ("llama-8b", "llama-70b", "qwen3-32b"):
        residual = plan(small, name).residual
        energy = 1 + sum(scale**2 for scale in residual.scales)
        assert residual.eps > 0 and 0 < residual.constant**2 <= small.rms_eps * small.hidden_size / 2
        for mean_square in (0.0, 1e-4, 3.0):  # of the small stream: the wide norm divides by the same number
            wide = (energy * small.hidden_size * mean_square + residual.constant**2) / residual.wide + residual.eps
            assert wide == pytest.approx(residual.norm_scale**2 * (mean_square + small.rms_eps), rel=1e-12)


REFUSED = (
    (SMOLLM2, "llama-1b", r"does not fit into llama-1b: layers 30 > 16"),
    (SMOLLM2, "qwen3-0.6b", r"layers 30 > 28"),
    (TARGET, "smollm2-135m", r"8 query heads over 2 K/V heads do not fit .* 4 of them are needed and there are 3"),
    (dataclasses.replace(TARGET, hidden_size=4097, vocab_size=200_000), "llama-8b", r"hidden size 4,097 > 4,096, voc"),
    (dataclasses.replace(TARGET, mlp_size=9000), "llama-1b", r"MLP size 9,000 > 8,192"),
    (dataclasses.replace(TARGET, head_dim=48), "llama-8b", r"heads of 48 do not fit into the heads of 128"),
    (dataclasses.replace(TARGET, head_dim=128), "llama-1b", r"heads of 128 do not fit into the heads of 64"),
    (dataclasses.replace(TARGET, hidden_size=2048), "llama-1b", r"fills the whole residual .* one dimension more"),
    (dataclasses.replace(TARGET, qk_norm=True), "llama-8b", r"normalises its query and key heads"),
    (dataclasses.replace(TARGET, attention_bias=True), "llama-8b", r"attention biases"),
)  # fmt: skip


@pytest.mark.parametrize(("small", "name", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_words(small: ModelConfig, name: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        plan(small, name)
