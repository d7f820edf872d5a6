"""The rotary part of a config.json, of transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssd_lab.errors import ModelLoadError
from ssd_lab.kernels.rope import KINDS, attention_factor, inverse_frequencies

DEFAULT_THETA = 10000.0  # transformers' own

_OLD_LENGTH = "original_max_position_embeddings"
_ENTRIES = {
    "default": {"factor"},  # transformers looks at none of them
    "dynamic": {"factor", _OLD_LENGTH},
    "linear": {"factor", _OLD_LENGTH},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", _OLD_LENGTH},
    "yarn": {
        "factor", _OLD_LENGTH, "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
    },
}  # fmt: skip
_SAYS_NOTHING = {"rope_type", "type", "rope_theta", "finetuned"}


@dataclass(frozen=True)
class RopeConfig:
    """theta: the base. scaling: what `inverse_frequencies` takes; None for none."""

    theta: float
    scaling: Mapping[str, Any] | None


def read_rope(data: Mapping[str, Any], head_dim: int) -> RopeConfig:
    """The rotation that a config asks for. Raises ModelLoadError for one that is not implemented, or half given."""
    given = _given(data)
    theta = float(given.get("rope_theta") or data.get("rope_theta") or DEFAULT_THETA)
    if not given:
        return RopeConfig(theta, None)
    partial = given.pop("partial_rotary_factor", None)
    if partial not in (None, 1):
        raise ModelLoadError(f"partial_rotary_factor is {partial}: only rotation of whole heads (1) is implemented")
    kind = given.get("rope_type", given.get("type"))
    if kind is None and given.keys() - {"rope_theta"}:
        raise ModelLoadError(f"the rope scaling {given} does not say its kind: add rope_type ({', '.join(_ENTRIES)})")
    kind = kind or "default"
    if kind not in _ENTRIES:
        raise ModelLoadError(
            f"rope scaling {kind!r} is not supported: {', '.join(_ENTRIES)} are; take another checkpoint"
        )
    unknown = {name for name, value in given.items() if value is not None} - _ENTRIES[kind] - _SAYS_NOTHING
    if unknown:
        raise ModelLoadError(f"rope scaling {kind!r} with {', '.join(sorted(unknown))} is not implemented")
    if kind not in KINDS:  # dynamic scaling begins past max_position_embeddings, and no text gets that long here
        return RopeConfig(theta, None)
    if kind in ("llama3", "yarn"):
        given.setdefault(_OLD_LENGTH, data.get(_OLD_LENGTH) or data.get("max_position_embeddings"))
    scaling = {name: value for name, value in given.items() if name != "rope_theta"}
    _try(head_dim, theta, scaling)
    return RopeConfig(theta, scaling)


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are there, under either name. Raises ModelLoadError if both are and differ."""
    new, old = dict(data.get("rope_parameters") or {}), dict(data.get("rope_scaling") or {})
    for name, entries in (("rope_parameters", new), ("rope_scaling", old)):
        per_layer = [key for key, value in entries.items() if isinstance(value, Mapping)]
        if per_layer:
            raise ModelLoadError(f"{name} differs between kinds of layers ({', '.join(per_layer)}): not implemented")
    if new and old and _scaling_of(new) != _scaling_of(old):
        raise ModelLoadError(
            f"rope_parameters {new} and rope_scaling {old} contradict each other: delete the wrong one"
        )
    return {**old, **new}


def _scaling_of(entries: Mapping[str, Any]) -> dict[str, Any]:
    kind = entries.get("rope_type", entries.get("type", "default"))
    others = {name: value for name, value in entries.items() if name not in _SAYS_NOTHING and value is not None}
    return {"rope_type": kind, **(others if kind != "default" else {})}


def _try(head_dim: int, theta: float, scaling: Mapping[str, Any]) -> None:
    """Make the frequencies once, so that what is wrong is said before any weight is read."""
    try:
        frequencies = inverse_frequencies(head_dim, theta, scaling)
        usable = bool(frequencies.isfinite().all()) and attention_factor(scaling) > 0
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelLoadError(f"the rope scaling {dict(scaling)} cannot be computed ({error})") from error
    if not usable:
        raise ModelLoadError(f"the rope scaling {dict(scaling)} gives no usable rotation")
