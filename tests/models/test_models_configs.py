"""Entries of config.json: what is implemented gives transformers' logits; what else changes the function is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.config_json import config_from_json
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import load_model
from ssd_lab.rounds.rows import causal_step_at

LENGTH = 96
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 200, "max_position_embeddings": 128, "initializer_range": 0.25,
}  # fmt: skip
LLAMA: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SIZES}
QWEN3: dict[str, Any] = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 16, **SIZES}


def saved(folder: Path, family: str, **fields: Any) -> tuple[Path, Any]:
    """A random model of transformers with these entries, and its folder."""
    import transformers

    torch.manual_seed(5)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, "head_dim": 16, **fields})
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms of ones and biases of zeros would hide a forgotten one
            torch.nn.init.normal_(parameter, float("norm" in name), 0.2)
    model.save_pretrained(folder)
    return folder, model


def edit(folder: Path, drop: tuple[str, ...] = (), **entries: Any) -> None:
    data = json.loads((folder / "config.json").read_text())
    kept = {name: value for name, value in data.items() if name not in drop}
    (folder / "config.json").write_text(json.dumps({**kept, **entries}))


@torch.inference_mode()
def gap(folder: Path, model: Any) -> float:
    """Largest difference of our logits to those of transformers, over a text."""
    ids = torch.randint(0, 200, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    ours = load_model(folder, dtype="float32", pack=False)
    cache = PagedKVCache(ours.config, LENGTH // 8 + 1, 8, torch.float32, "cpu")
    step = causal_step_at(ids, [0], [list(range(1, LENGTH // 8 + 1))], 8)
    logits = ours.decoder.logits(ours.decoder.forward(step, cache)[0])
    return float((logits - model(ids).logits[0]).abs().max())


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
IMPLEMENTED = {
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}},
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "yarn": {"rope_parameters": YARN},
    "yarn by its scales": {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.0, "beta_fast": 8}},
    "yarn by a factor": {"rope_parameters": {**YARN, "attention_factor": 0.8, "truncate": False}},
    "biases": {"attention_bias": True},
    "one key head": {"num_key_value_heads": 1},
    "wide heads": {"head_dim": 32},
    "tied": {"tie_word_embeddings": True},
    "rough norms": {"rms_norm_eps": 0.05},
}  # fmt: skip


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
@pytest.mark.parametrize("kind", IMPLEMENTED)
def test_what_is_implemented_gives_the_logits_of_transformers(tmp_path: Path, family: str, kind: str) -> None:
    folder, model = saved(tmp_path / "model", family, **IMPLEMENTED[kind])
    assert gap(folder, model) < 2e-3


def test_the_entries_of_transformers_4_mean_the_same(tmp_path: Path) -> None:
    folder, model = saved(tmp_path / "model", "Llama", rope_parameters=YARN)
    old = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "finetuned": True}
    edit(folder, drop=("rope_parameters",), rope_theta=1e4, rope_scaling=old)
    assert gap(folder, model) < 2e-3


def test_what_is_missing_is_what_transformers_takes(tmp_path: Path) -> None:
    folder, model = saved(tmp_path / "model", "Llama", num_key_value_heads=4)
    model.config.rms_norm_eps = 1e-6
    edit(folder, drop=("num_key_value_heads", "rms_norm_eps", "head_dim", "rope_parameters", "tie_word_embeddings"))
    assert gap(folder, model) < 2e-3
    assert config_from_json({**QWEN3, "head_dim": None}).head_dim == 128


WINDOW = {"use_sliding_window": True, "sliding_window": 16}
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (QWEN3, {**WINDOW, "max_window_layers": 1}, r"1 of 2 layers attend within a sliding window \(16 tokens\)"),
    (QWEN3, {**WINDOW, "max_window_layers": 0}, "set max_position_embeddings to 16"),
    (QWEN3, {**WINDOW, "layer_types": ["full_attention", "sliding_attention"]}, "1 of 2 layers"),
    (LLAMA, {"sliding_window": 16}, "2 of 2 layers"),
    (QWEN3, {"layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention"),
    (LLAMA, {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}}, "'longrope'"),
    (LLAMA, {"rope_parameters": {"rope_type": "su", "factor": 2.0}}, "rope scaling 'su' is not supported"),
    (LLAMA, {"rope_scaling": {"factor": 2.0}}, "does not say its kind"),
    (LLAMA, {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}}, "mrope_section"),
    (LLAMA, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "alpha": 1000.0}}, "alpha"),
    (LLAMA, {"rope_scaling": {"rope_type": "linear"}}, "needs the entry 'factor'"),
    (LLAMA, {"rope_scaling": {"rope_type": "linear", "factor": "two"}}, "cannot be computed"),
    (LLAMA, {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "differs between kinds of layers"),
    (
        LLAMA,
        {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        "contradict",
    ),
    (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    (LLAMA, {"rope_parameters": {"partial_rotary_factor": 0.25}}, "only rotation of whole heads"),
    (LLAMA, {"mlp_bias": True}, "mlp_bias=True"),
    (LLAMA, {"qkv_bias": True}, "qkv_bias=True"),
    (LLAMA, {"hidden_act": "gelu"}, "hidden_act='gelu'"),
    (LLAMA, {"logit_scale": 0.0625}, "logit_scale=0.0625"),
    (LLAMA, {"logits_scaling": 8.0}, "logits_scaling=8.0"),
    (LLAMA, {"attention_multiplier": 0.015}, "attention_multiplier=0.015"),
    (LLAMA, {"residual_multiplier": 0.22, "embedding_multiplier": 12}, "embedding_multiplier=12, residual_multiplier"),
    (LLAMA, {"scale_emb": 12, "scale_depth": 1.4}, "scale_depth=1.4, scale_emb=12"),
    (LLAMA, {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    (LLAMA, {"use_qk_norm": True}, "use_qk_norm"),
    (LLAMA, {"no_rope_layers": [1, 0]}, "no_rope_layers"),
    (LLAMA, {"num_local_experts": 8, "num_experts_per_tok": 2}, "num_experts_per_tok=2, num_local_experts=8"),
    (LLAMA, {"attention_chunk_size": 64}, "attention_chunk_size"),
    (LLAMA, {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}, r"'mistral' .*MistralForCausalLM"),
    (LLAMA, {"model_type": None}, "model_type None is not supported"),
    (LLAMA, {"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification is not supported"),
    (LLAMA, {"num_attention_heads": 4, "num_key_value_heads": 3}, "fit no attention"),
    (LLAMA, {"hidden_size": "64"}, "hidden_size is '64'"),
    (LLAMA, {"num_hidden_layers": None}, "has no entry 'num_hidden_layers'"),
    (LLAMA, {"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'"),
    (LLAMA, {"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "entries", "says"), REFUSED)
def test_what_is_not_implemented_is_refused_by_name(base: dict[str, Any], entries: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelLoadError, match=says):
        config_from_json({**base, **entries})


# real configs hold these: SmolLM2, Llama 3, Qwen3, fine-tunes of them
HARMLESS: dict[str, Any] = {
    "_name_or_path": "x", "_attn_implementation": "sdpa", "attention_dropout": 0.1, "initializer_range": 0.02,
    "is_llama_config": True, "mlp_bias": False, "pretraining_tp": 1, "rope_interleaved": False, "rope_scaling": None,
    "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}}, "transformers_version": "4.42.3",
    "torch_dtype": "bfloat16", "dtype": "bfloat16", "use_cache": True, "pad_token_id": 0, "unsloth_fixed": True,
    "sliding_window": None, "use_sliding_window": False, "max_window_layers": 28, "hidden_act": "silu",
    "quantization_config": None, "num_experts": 0, "residual_multiplier": 1.0, "logit_scale": 1,
    "no_rope_layers": [1, 1],
    "output_attentions": True, "add_cross_attention": False, "chunk_size_feed_forward": 0, "layer_types": None,
    "id2label": {"0": "LABEL_0"}, "auto_map": {}, "use_flash_attention_2": True, "eos_token_id": [2, 3],
}  # fmt: skip


def test_entries_that_change_nothing_are_passed_over() -> None:
    config = config_from_json({**LLAMA, **HARMLESS})
    assert (config.rope_scaling, config.eos_token_ids) == (None, (2, 3))


def test_a_window_that_sees_the_whole_context_is_none() -> None:
    assert config_from_json({**QWEN3, **WINDOW, "sliding_window": 128, "max_window_layers": 0}).max_positions == 128
    assert config_from_json({**QWEN3, **WINDOW, "max_window_layers": 2}).num_layers == 2


def test_the_advice_on_a_window_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    folder, model = saved(
        tmp_path / "model", "Qwen3", use_sliding_window=True, sliding_window=LENGTH, max_window_layers=0
    )
    with pytest.raises(ModelLoadError, match=f"set max_position_embeddings to {LENGTH}: up to there"):
        load_model(folder)
    edit(folder, max_position_embeddings=LENGTH)
    assert gap(folder, model) < 2e-3
