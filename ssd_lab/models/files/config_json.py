"""The shape of a decoder as a config.json, of transformers 4 or 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.families import FAMILIES, Family
from ssd_lab.models.files import quantisation
from ssd_lab.models.files.config_entries import check_entries
from ssd_lab.models.files.rope_entries import read_rope

RMS_EPS = 1e-6  # what transformers takes where the entry is missing
FIRST_WINDOW_LAYER = 28  # likewise


def config_from_json(data: Mapping[str, Any]) -> ModelConfig:
    """The shape that its entries describe.

    Raises ModelLoadError for another architecture, quantised weights, an entry that is missing or no number, and for
    every entry that changes what a model computes and is not implemented.
    """
    family = _family_of(data)
    quantisation.check_config(data)
    check_entries(data, family.entries, plain=FAMILIES.names)
    hidden, heads = _whole(data, "hidden_size"), _whole(data, "num_attention_heads")
    num_layers, max_positions = _whole(data, "num_hidden_layers"), _whole(data, "max_position_embeddings")
    _check_window(data, family, num_layers, max_positions)
    kv_heads = _whole(data, "num_key_value_heads", default=heads)
    head_dim = _whole(data, "head_dim", default=family.head_dim or hidden // heads)
    is_derived = "head_dim" not in data and family.head_dim is None
    if heads % kv_heads or head_dim % 2 or (is_derived and hidden % heads):
        raise ModelLoadError(
            f"{heads} heads of size {head_dim} over {kv_heads} key/value heads and a hidden size of {hidden} fit "
            "no attention: config.json is damaged or of another model"
        )
    rope = read_rope(data, head_dim)
    fields: dict[str, Any] = {
        "model_type": family.model_type,
        "hidden_size": hidden,
        "num_layers": num_layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp_size": _whole(data, "intermediate_size"),
        "vocab_size": _whole(data, "vocab_size"),
        "max_positions": max_positions,
        "rms_eps": _epsilon(data),
        "rope_theta": rope.theta,
        "rope_scaling": rope.scaling,
        "tie_embeddings": bool(data.get("tie_word_embeddings") or False),
        "qk_norm": family.qk_norm,
        "attention_bias": bool(data.get("attention_bias") or False),
        "eos_token_ids": _token_ids(data, "eos_token_id"),
        "bos_token_id": next(iter(_token_ids(data, "bos_token_id")), None),
    }
    return ModelConfig(**{**fields, **family.fields(data)})


def config_to_json(config: ModelConfig, *, dtype: str) -> dict[str, Any]:
    """config.json as transformers writes it for a Llama, with entries of transformers 4 and 5."""
    rope = {"rope_type": "default"} if config.rope_scaling is None else dict(config.rope_scaling)
    ends = config.eos_token_ids
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": config.model_type,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling is None else rope,
        "rope_parameters": {**rope, "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends) or None,
        "torch_dtype": dtype,
    }


def _family_of(data: Mapping[str, Any]) -> Family:
    """Raises ModelLoadError, by name, for a model of no known family, or another class of model of this one."""
    classes = data.get("architectures") or []
    named = ", ".join(map(str, classes))
    family = FAMILIES.of(data.get("model_type"), also=f"; this is ({named})" if named else "")
    if classes and family.architecture not in classes:
        raise ModelLoadError(
            f"architecture {named} is not supported: for model_type {family.model_type!r} only {family.architecture} is"
        )
    return family


def _check_window(data: Mapping[str, Any], family: Family, num_layers: int, max_positions: int) -> None:
    """Raise ModelLoadError if some layer sees only a part of the longest text."""
    kinds = data.get("layer_types") or []
    other = sorted({str(kind) for kind in kinds} - {"full_attention", "sliding_attention"})
    if other:
        raise ModelLoadError(f"layer_types asks for {', '.join(other)}: only full_attention is implemented")
    sliding = _sliding_layers(data, family, num_layers)
    window = data.get("sliding_window")
    if not sliding or (isinstance(window, int) and window >= max_positions):
        return
    advice = f", or set max_position_embeddings to {window}: up to there a window sees everything" if window else ""
    raise ModelLoadError(
        f"{sliding} of {num_layers} layers attend within a sliding window ({window} tokens), which is not implemented: "
        f"take a checkpoint with full attention{advice}"
    )


def _sliding_layers(data: Mapping[str, Any], family: Family, num_layers: int) -> int:
    """How many layers have a window, as transformers reads the entries."""
    if data.get("layer_types"):
        return sum(kind == "sliding_attention" for kind in data["layer_types"])
    if not data.get("use_sliding_window", not family.asks_for_windows) or not data.get("sliding_window"):
        return 0
    first = data.get("max_window_layers", FIRST_WINDOW_LAYER) if family.asks_for_windows else 0
    return max(0, num_layers - first)


def _whole(data: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    """A positive whole number. default: for an entry that may be missing."""
    value = data.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise ModelLoadError(f"config.json has no entry {name!r}: is it the config of a causal language model?")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelLoadError(f"{name} is {value!r} in config.json: one positive whole number is expected")
    return value


def _epsilon(data: Mapping[str, Any]) -> float:
    value = data.get("rms_norm_eps", RMS_EPS)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ModelLoadError(f"rms_norm_eps is {value!r} in config.json: a small number such as 1e-06 is expected")
    return float(value)


def _token_ids(data: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = data.get(name)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(not isinstance(one, int) or isinstance(one, bool) for one in ids):
        raise ModelLoadError(f"{name} is {value!r} in config.json: a token id or a list of them is expected")
    return tuple(one for one in ids if one >= 0)  # -1 is how some write "none"
