"""The shape of a decoder from a GGUF file's entries; every entry of its architecture is read or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssd_lab.errors import ModelLoadError
from ssd_lab.kernels.rope import inverse_frequencies
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.families import FAMILIES, Family

ROPE_DIVISORS = "rope_freqs.weight"

_READ = frozenset({
    "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scaling.type",
    "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scale_linear",
})  # fmt: skip
_CHANGES_NOTHING = frozenset({
    "vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "attention.layer_norm_epsilon",
})  # fmt: skip
_NEUTRAL_AT_ONE = ("scale", "factor")


def read_gguf_config(entries: Mapping[str, Any], tensors: Mapping[str, Any], source: str) -> ModelConfig:
    """entries: the file's, by key. tensors: by name, as the library describes them.

    Raises ModelLoadError for another architecture, a missing entry, and one that is not implemented.
    """
    kind = entries.get("general.type", "model")
    if kind != "model":
        raise ModelLoadError(f"{source}: it holds {kind!r}, not a model: give the model's own file")
    if "general.architecture" not in entries:
        raise ModelLoadError(f"{source} lacks the entry general.architecture: is it a language model?")
    family = FAMILIES.of_gguf(entries["general.architecture"], source)
    return _Reading(entries, tensors, family, source).config()


class _Reading:
    def __init__(self, entries: Mapping[str, Any], tensors: Mapping[str, Any], family: Family, source: str) -> None:
        self._entries, self._tensors, self._family, self._source = entries, tensors, family, source
        self._kind = family.gguf_architecture

    def config(self) -> ModelConfig:
        self._check()
        hidden, heads = self._whole("embedding_length"), self._whole("attention.head_count")
        head_dim = self._whole("attention.key_length", hidden // heads)
        for key in ("attention.value_length", "rope.dimension_count"):
            if self._whole(key, head_dim) != head_dim:
                raise self._error(f"{key} is {self._get(key)} and a head has {head_dim} numbers: not implemented")
        if "token_embd.weight" not in self._tensors:
            raise self._error(
                "it lacks the tensor token_embd.weight: it holds no language model, or only a part of one"
            )
        end, begin = (self._entries.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "bos"))
        return ModelConfig(
            model_type=self._family.model_type,
            hidden_size=hidden,
            num_layers=self._whole("block_count"),
            num_heads=heads,
            num_kv_heads=self._whole("attention.head_count_kv", heads),
            head_dim=head_dim,
            mlp_size=self._whole("feed_forward_length"),
            vocab_size=int(self._tensors["token_embd.weight"].shape[1]),
            max_positions=self._whole("context_length"),
            rms_eps=self._number("attention.layer_norm_rms_epsilon"),
            rope_theta=self._number("rope.freq_base", 10000.0),
            rope_scaling=self._rope_scaling(head_dim),
            tie_embeddings="output.weight" not in self._tensors,
            qk_norm=self._family.qk_norm,
            attention_bias="blk.0.attn_q.bias" in self._tensors,
            eos_token_ids=() if end is None else (int(end),),
            bos_token_id=None if begin is None else int(begin),
        )

    def _check(self) -> None:
        """Refuse entries that would make it another function."""
        prefix = f"{self._kind}."
        given = {key.removeprefix(prefix): value for key, value in self._entries.items() if key.startswith(prefix)}
        wrong = [key for key, value in given.items() if not self._leaves_alone(key, value)]
        if wrong:
            named = ", ".join(f"{prefix}{key}={given[key]!r}" for key in sorted(wrong))
            raise self._error(
                f"it asks for what is not implemented, and passing over it would give another model: {named}; take a "
                f"plain {FAMILIES.names}"
            )

    def _leaves_alone(self, key: str, value: Any) -> bool:
        if key in _READ or key in _CHANGES_NOTHING:
            return True
        if key == "attention.causal":
            return bool(value)
        if key == "attention.sliding_window" and isinstance(value, int) and value >= self._whole("context_length"):
            return True
        return value in (None, False, "", []) or (value == 1 and key.endswith(_NEUTRAL_AT_ONE))

    def _rope_scaling(self, head_dim: int) -> dict[str, Any] | None:
        if ROPE_DIVISORS in self._tensors:  # Llama 3.1 and later: the scaling is written out, one number a frequency
            divisors = self._tensors[ROPE_DIVISORS].data.tolist()
            if len(divisors) != head_dim // 2:
                raise self._error(f"{ROPE_DIVISORS} has {len(divisors)} numbers, and a head of {head_dim} needs half")
            return {"rope_type": "divisors", "divisors": divisors}
        factor = self._number("rope.scaling.factor", self._number("rope.scale_linear", 0.0))
        kind = self._get("rope.scaling.type", "linear" if factor else "none")  # as llama.cpp takes it
        if kind == "none" or factor in (0.0, 1.0):
            return None
        scaling = {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            scaling["original_max_position_embeddings"] = self._whole(
                "rope.scaling.original_context_length", self._whole("context_length")
            )
        inverse_frequencies(head_dim, 10000.0, scaling)  # raises for a kind that is not implemented
        return scaling

    def _get(self, key: str, *default: Any) -> Any:
        value = self._entries.get(f"{self._kind}.{key}")
        if value is not None:
            return value
        if not default:
            raise self._error(f"it lacks the entry {self._kind}.{key}: is it a language model?")
        return default[0]

    def _whole(self, key: str, *default: int) -> int:
        value = self._get(key, *default)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._error(f"{self._kind}.{key} is {value!r}: one positive whole number for all layers is expected")
        return value

    def _number(self, key: str, *default: float) -> float:
        return float(self._get(key, *default))

    def _error(self, problem: str) -> ModelLoadError:
        return ModelLoadError(f"{self._source}: {problem}")
