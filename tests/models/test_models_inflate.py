"""A small model inflated to a wide shape computes the same function; idle weights are noise; mistakes are noticed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from inflated_models import CPU, TOLERANCE, difference, inflated, logits_of, made, random_checkpoint, widened

from ssd_lab import demo
from ssd_lab.kernels.rope import inverse_frequencies
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.checkpoint import Checkpoint, open_checkpoint
from ssd_lab.models.inflate import weights as inflate
from ssd_lab.models.inflate.geometry import find_geometry
from ssd_lab.models.inflate.plan import InflationPlan, plan_inflation
from ssd_lab.models.inflate.weights import InflatedWeights

TEXT = "A baker puts 6 muffins in each box and fills 8 boxes. How many muffins are there in total?"
# each padding alone; the vocabulary needs a dimension of its own in the residual stream
PADDINGS: dict[str, dict[str, Any]] = {
    "hidden, factor 1/2": {"hidden_size": 1024},
    "hidden, factor 1 through copies": {"hidden_size": 768},
    "hidden, factor 1 through copies of half scale": {"hidden_size": 1152},
    "hidden, no exact factor": {"hidden_size": 300},
    "head size": {"head_dim": 128},
    "head size, three times": {"head_dim": 192},
    "more groups of the same size": {"num_heads": 12, "num_kv_heads": 3},
    "smaller groups": {"num_heads": 8, "num_kv_heads": 4},
    "groups of uneven size": {"num_heads": 6, "num_kv_heads": 2},
    "a larger group": {"num_heads": 16, "num_kv_heads": 2},
    "MLP": {"mlp_size": 700},
    "layers": {"num_layers": 8},
    "vocabulary": {"vocab_size": 5000, "hidden_size": 512},
    "vocabulary and a head of its own": {"vocab_size": 5000, "hidden_size": 257, "tie_embeddings": False},
    "a head of its own": {"tie_embeddings": False},
    "another base of the rotary frequencies": {"rope_theta": 500000.0},
}
EVERYTHING: dict[str, Any] = {
    "hidden_size": 2048 - 512, "head_dim": 128, "num_heads": 12, "num_kv_heads": 6, "mlp_size": 700, "num_layers": 5,
    "vocab_size": 5000, "max_positions": 2048,
}  # fmt: skip


@pytest.fixture(scope="module")
def draft() -> Checkpoint:
    return open_checkpoint(demo.DRAFT)


@pytest.fixture(scope="module")
def ids(draft: Checkpoint) -> list[int]:
    assert draft.tokenizer is not None
    return draft.tokenizer.encode(TEXT)


@pytest.fixture(scope="module")
def expected(draft: Checkpoint, ids: list[int]) -> torch.Tensor:
    return logits_of(made(draft.config, draft.weights), ids)


def plan_of(draft: Checkpoint, changes: dict[str, Any]) -> InflationPlan:
    return plan_inflation(draft.config, widened(draft.config, **changes), "a test's shape")


@pytest.mark.parametrize("changes", PADDINGS.values(), ids=PADDINGS)
def test_each_padding_alone_keeps_the_function(
    draft: Checkpoint, ids: list[int], expected: torch.Tensor, changes: dict[str, Any]
) -> None:
    plan = plan_of(draft, changes)
    for name, value in changes.items():
        if name != "rope_theta":  # a property of the function, not of the shape
            assert getattr(plan.config, name) == value
    assert difference(expected, logits_of(inflated(draft, plan), ids)) < TOLERANCE


def test_all_paddings_together_keep_the_function(draft: Checkpoint, ids: list[int], expected: torch.Tensor) -> None:
    logits = logits_of(inflated(draft, plan_of(draft, EVERYTHING)), ids)
    assert difference(expected, logits) < TOLERANCE
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))


def test_a_qwen3_shape_is_made_without_its_head_norms(
    draft: Checkpoint, ids: list[int], expected: torch.Tensor
) -> None:
    plan = plan_of(draft, EVERYTHING | {"model_type": "qwen3", "qk_norm": True})
    assert plan.config.model_type == "llama" and not plan.config.qk_norm
    assert any("norms of query and key heads are left out" in note for note in plan.notes)
    assert difference(expected, logits_of(inflated(draft, plan), ids)) < TOLERANCE


def test_an_untied_small_model_keeps_its_own_head() -> None:
    config = ModelConfig("llama", 48, 2, 9, 3, 16, 80, 120, 256)  # 9 query heads over 3, as in SmolLM2
    small, text = random_checkpoint(config), list(range(5, 45))
    wide = widened(config, hidden_size=200, num_heads=16, num_kv_heads=8, vocab_size=300, tie_embeddings=True)
    plan = plan_inflation(config, wide, "a test's shape")
    assert not plan.config.tie_embeddings
    assert any("weights of its own" in note for note in plan.notes)
    assert difference(logits_of(made(config, small.weights), text), logits_of(inflated(small, plan), text)) < TOLERANCE


def wrong_eps(plan: InflationPlan) -> InflationPlan:
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, rms_eps=plan.small.rms_eps))


def wrong_constant(plan: InflationPlan) -> InflationPlan:
    """The constant's square left out of epsilon."""
    added = plan.residual.constant**2 / plan.residual.wide
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, rms_eps=plan.residual.eps + added))


def wrong_norm_scale(plan: InflationPlan) -> InflationPlan:
    return dataclasses.replace(
        plan, residual=dataclasses.replace(plan.residual, norm_scale=1.01 * plan.residual.norm_scale)
    )


def rotary_off_by_one(plan: InflationPlan) -> InflationPlan:
    half = len(plan.rotary) // 2
    moved = [dimension + 1 for dimension in plan.rotary[:half]]
    return dataclasses.replace(plan, rotary=(*moved, *(d + plan.config.head_dim // 2 for d in moved)))


def rotary_at_the_front(plan: InflationPlan) -> InflationPlan:
    half = len(plan.rotary) // 2
    return dataclasses.replace(
        plan, rotary=(*range(half), *range(plan.config.head_dim // 2, plan.config.head_dim // 2 + half))
    )


def wrong_query_scale(plan: InflationPlan) -> InflationPlan:
    return dataclasses.replace(plan, query_scale=1.0)


def a_query_head_lost(plan: InflationPlan) -> InflationPlan:
    heads = [None if head == 3 else head for head in plan.query_heads]
    return dataclasses.replace(plan, query_heads=tuple(heads))


def layers_in_another_order(plan: InflationPlan) -> InflationPlan:
    return dataclasses.replace(plan, layers=tuple(reversed(plan.layers)))


MISTAKES = (
    wrong_eps, wrong_constant, wrong_norm_scale, rotary_off_by_one, rotary_at_the_front, wrong_query_scale,
    a_query_head_lost, layers_in_another_order,
)  # fmt: skip


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_a_mistake_in_the_plan_shows(mistake: Callable[[InflationPlan], InflationPlan] | None) -> None:
    """On a model whose residual stream begins so faint that epsilon matters; without a mistake it is the same too."""
    config = ModelConfig("llama", 48, 3, 8, 2, 16, 80, 120, 256, tie_embeddings=True)
    small, text = random_checkpoint(config), list(range(5, 45))
    wide = widened(
        config, hidden_size=320, num_layers=5, num_heads=12, num_kv_heads=6, head_dim=32, mlp_size=100, vocab_size=200
    )
    plan = plan_inflation(config, wide, "a test's shape")
    logits = logits_of(inflated(small, plan if mistake is None else mistake(plan)), text)
    found = difference(logits_of(made(config, small.weights), text), logits)
    assert found < TOLERANCE if mistake is None else found > 20 * TOLERANCE


@pytest.mark.quick("True-dtype0", "False-dtype1")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_tokens_of_the_padded_vocabulary_have_no_probability(
    draft: Checkpoint, ids: list[int], dtype: torch.dtype, tied: bool
) -> None:
    logits = logits_of(inflated(draft, plan_of(draft, EVERYTHING | {"tie_embeddings": tied}), dtype), ids)
    real, padded = logits[:, :4096], logits[:, 4096:]
    assert padded.isfinite().all()
    assert (padded.max(-1).values < real.min(-1).values - 200).all()
    assert (logits.softmax(-1)[:, 4096:] == 0).all()


def test_a_token_that_the_small_model_lacks_does_no_harm_where_the_head_is_untied(
    draft: Checkpoint, ids: list[int]
) -> None:
    model = inflated(draft, plan_of(draft, EVERYTHING | {"tie_embeddings": False}))
    logits = logits_of(model, [*ids[:5], 4999, *ids[5:]])
    assert (logits.argmax(-1) < 4096).all()


def test_noise_is_everywhere_where_zero_is_not_needed(draft: Checkpoint) -> None:
    plan = plan_of(draft, EVERYTHING)
    weights = InflatedWeights(plan, draft.weights, dtype=torch.float32, device=CPU)
    hidden, real = plan.config.hidden_size, plan.small.hidden_size
    idle, used = plan.layers.index(None), plan.layers.index(0)

    def zeros(name: str) -> torch.Tensor:
        return weights.read(name) == 0

    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
        assert not zeros(f"model.layers.{idle}.{part}.weight").any(), part
    for part in ("self_attn.v_proj", "mlp.up_proj"):  # read the padding, and nothing but the padding
        read = zeros(f"model.layers.{idle}.{part}.weight")
        assert read[:, :real].all() and not read[:, real:].any(), part
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
        assert not zeros(f"model.layers.{used}.{part}.weight")[:, real:].any(), part
    assert not zeros(f"model.layers.{used}.mlp.down_proj.weight")[:, plan.small.mlp_size :].any()
    written = zeros(f"model.layers.{used}.self_attn.o_proj.weight").view(hidden, len(plan.query_heads), -1)
    between = [d for d in range(plan.config.head_dim) if d not in plan.rotary]
    assert not written[:, :, between].any()
    noise = weights.read(f"model.layers.{idle}.mlp.down_proj.weight")
    assert noise.std() == pytest.approx(inflate.NOISE_STD, rel=0.01)
    assert noise.mean() == pytest.approx(0, abs=1e-4)


def test_idle_weights_do_nothing_however_large_they_are(
    draft: Checkpoint, ids: list[int], expected: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflate, "NOISE_STD", 1.0)
    assert difference(expected, logits_of(inflated(draft, plan_of(draft, EVERYTHING)), ids)) < TOLERANCE


def test_noise_follows_from_the_seed_and_the_name(draft: Checkpoint) -> None:
    plan = plan_of(draft, EVERYTHING)
    name, other = "model.layers.0.mlp.gate_proj.weight", "model.layers.1.mlp.gate_proj.weight"
    first, again, seeded = (
        InflatedWeights(plan, draft.weights, dtype=torch.bfloat16, device=CPU, seed=s) for s in (0, 0, 1)
    )
    assert torch.equal(first.read(name), again.read(name))
    assert not torch.equal(first.read(name)[-1], seeded.read(name)[-1])
    assert not torch.equal(first.read(name)[-1], first.read(other)[-1])


def test_small_weights_are_copied_bit_for_bit_where_factors_are_powers_of_two(draft: Checkpoint) -> None:
    plan = plan_inflation(draft.config, find_geometry("llama-1b").config, "llama-1b")
    assert plan.copies_exactly and plan.residual.norm_scale == 0.5 and plan.residual.scales == (1.0,)
    weights = InflatedWeights(plan, draft.weights, dtype=torch.bfloat16, device=CPU)
    place = plan.layers.index(1)
    for part, rows in (("self_attn.q_proj", 256), ("self_attn.k_proj", 64), ("mlp.gate_proj", 560)):
        wide = weights.read(f"model.layers.{place}.{part}.weight")[:rows, :256]
        assert torch.equal(wide, draft.weights.read(f"model.layers.1.{part}.weight")), part
    norm = weights.read(f"model.layers.{place}.input_layernorm.weight")
    assert torch.equal(norm[:256] * 2, draft.weights.read("model.layers.1.input_layernorm.weight"))
    assert not norm[256:].any()


SCALINGS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"rope_type": "linear", "factor": 4.0},
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    {"rope_type": "divisors", "divisors": [1.0 + i / 7 for i in range(32)]},
)  # fmt: skip


@pytest.mark.parametrize("head_dim", [64, 128, 192])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_rotary_pairs_turn_with_the_same_frequencies_bit_for_bit(
    draft: Checkpoint, scaling: dict[str, Any] | None, head_dim: int
) -> None:
    small = widened(draft.config, rope_scaling=scaling)
    plan = plan_inflation(small, widened(draft.config, head_dim=head_dim), "a test's shape")
    frequencies = inverse_frequencies(head_dim, plan.config.rope_theta, plan.config.rope_scaling)
    pairs = list(plan.rotary[: small.head_dim // 2])
    assert torch.equal(frequencies[pairs], inverse_frequencies(small.head_dim, small.rope_theta, scaling))
    assert list(plan.rotary[small.head_dim // 2 :]) == [pair + head_dim // 2 for pair in pairs]


@pytest.mark.full
def test_the_real_shape_of_llama_1b_on_a_few_layers(draft: Checkpoint, ids: list[int], expected: torch.Tensor) -> None:
    wide = widened(find_geometry("llama-1b").config, num_layers=3, vocab_size=4500, max_positions=1024)
    logits = logits_of(inflated(draft, plan_inflation(draft.config, wide, "llama-1b")), ids)
    assert difference(expected, logits) < TOLERANCE
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
