"""Entries of a config.json that change what a model computes and are not implemented: refused, never passed over.

`config_from_json` reads what is implemented. Every other entry is known to change nothing, has a value that leaves
it off, or has a name that tells of nothing that a forward computes; what remains is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ssd_lab.errors import ModelLoadError

READ = frozenset({
    "model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "intermediate_size", "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta",
    "rope_scaling", "rope_parameters", "tie_word_embeddings", "attention_bias", "eos_token_id", "bos_token_id",
    "sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "quantization_config", "quantization",
    "compression_config", "original_max_position_embeddings",
})  # fmt: skip

# their names sound like more than they are: training, or how and not what is computed
_CHANGES_NOTHING = re.compile(
    r"_.*|.*dropout.*|.*_pdrop|.*initializer.*|.*(flash_attn|flash_attention|attn_implementation|sdpa).*"
    r"|output_(attentions|hidden_states)|layer_norm_eps(ilon)?|chunk_size_feed_forward|.*(aux|loss)_.*|.*_loss.*"
    r"|max_sequence_length|.*token_id(s)?"
)

# values of entries that leave a model as it is, where these are not simply "off"
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "hidden_activation": ("silu", "swish"),
    "activation_function": ("silu", "swish"),
    "mlp_activation": ("silu", "swish"),
    "use_rope": (True,),
    "no_bias": (True,),
    "is_causal": (True,),
    "use_causal_mask": (True,),
    "rms_norm": (True,),
    "use_rms_norm": (True,),
    "normalization": ("rms", "rmsnorm", "RMSNorm"),
    "norm_type": ("rms", "rmsnorm", "rms_norm", "RMSNorm"),
    "normalization_type": ("rms", "rmsnorm", "RMSNorm"),
    "position_embedding_type": ("rope", "rotary", "absolute"),  # "absolute" is transformers' default for every model
}

# parts of names that tell of what a forward computes
_TELLS = frozenset({
    "attn", "attention", "attentions", "rope", "rotary", "alibi", "nope", "position", "positions", "positional",
    "norm", "norms", "normalization", "layernorm", "rmsnorm", "qk", "qkv", "kv", "bias", "biases", "scale", "scales",
    "scaled", "scaling", "multiplier", "multipliers", "factor", "alpha", "window", "sliding", "swa", "softcap",
    "softcapping", "cap", "clip", "clamp", "logit", "logits", "residual", "residuals", "expert", "experts", "moe",
    "router", "routing", "layer", "layers", "head", "heads", "act", "activation", "gate", "gated", "gating", "mlp",
    "ffn", "mask", "causal", "chunk", "chunked", "mup", "embed", "embedding", "embeddings", "embd", "emb", "sink",
    "sinks", "conv", "ssm", "mamba", "recurrent", "lora", "adapter", "parallel", "sparse", "block", "blocks", "depth",
    "softmax", "pre", "post", "shared", "share", "skip", "groups", "group",
})  # fmt: skip
_OF_SIZE = frozenset({"scale", "scales", "scaling", "multiplier", "multipliers", "factor", "alpha", "pct", "percent"})


def check_entries(data: Mapping[str, Any], more: frozenset[str], *, plain: str) -> None:
    """Raise ModelLoadError that lists the entries which change what is computed and are not implemented.

    more: names that the model's family reads. plain: families whose plain checkpoints can be taken.
    """
    wrong = [name for name, value in data.items() if name not in READ | more and not _leaves_alone(name, value)]
    if wrong:
        given = ", ".join(f"{name}={_short(data[name])}" for name in sorted(wrong))
        raise ModelLoadError(
            f"the config asks for what is not implemented, and passing over it would give another model: {given}; "
            f"take a plain {plain} checkpoint, or delete an entry of which you know that it changes nothing"
        )


def _leaves_alone(name: str, value: Any) -> bool:
    if name in _NEUTRAL:
        return value is None or value in _NEUTRAL[name]
    if value is None or value in (False, "", [], {}) or _CHANGES_NOTHING.fullmatch(name):
        return True
    if name == "no_rope_layers":  # one number a layer: is it rotated?
        return isinstance(value, list) and all(value)
    parts = set(re.split(r"[_.\-]", name.lower()))
    return not parts & _TELLS or (value == 1 and bool(parts & _OF_SIZE))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
