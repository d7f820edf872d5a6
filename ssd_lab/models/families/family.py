"""What a family declares, and the families of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.blocks import Parts
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.share import Cut


def _no_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Family:
    """Models that are read and made alike.

    name: for sentences. model_type, architecture: what config.json calls it, and the one class of `architectures`.
    make_decoder: see `decoder_of_blocks` for what differs from Llama in its blocks only. entries: of config.json beside
    Llama's that mean something here. fields: of `ModelConfig`, made of these entries. head_dim: where config.json does
    not say it (None: hidden size / heads). qk_norm: are query and key heads normed? asks_for_windows: does
    `sliding_window` hold only with `use_sliding_window`, and from layer `max_window_layers` on? gguf_architecture: what
    a GGUF file calls it (None: not read from such). gguf_interleaves: does llama.cpp's converter interleave the halves
    of its rotated heads? cuts: how ranks share its tensors, by the end of their names; the others each holds whole
    (None: it runs on one device only).
    """

    name: str
    model_type: str
    architecture: str
    make_decoder: Callable[[Parts], Decoder]
    entries: frozenset[str] = frozenset()
    fields: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _no_fields
    head_dim: int | None = None
    qk_norm: bool = False
    asks_for_windows: bool = False
    gguf_architecture: str | None = None
    gguf_interleaves: bool = False
    cuts: Mapping[str, Cut] | None = None


class Families:
    """Families by what checkpoints call them. built_in: the model_types that every process knows."""

    def __init__(self, families: Iterable[Family] = ()) -> None:
        self._by_type: dict[str, Family] = {}
        for family in families:
            self.register(family)
        self.built_in = frozenset(self._by_type)

    def register(self, family: Family) -> Family:
        """Add a family, or the same one again. Raises ConfigError if its model_type is another's."""
        known = self._by_type.get(family.model_type)
        if known is not None and known.name != family.name:
            raise ConfigError(f"model_type {family.model_type!r} is that of {known.name} already: take another")
        self._by_type[family.model_type] = family
        return family

    @property
    def names(self) -> str:
        """For a sentence: `Llama or Qwen3`."""
        return " or ".join(family.name for family in self._by_type.values())

    def of(self, model_type: Any, *, also: str = "") -> Family:
        """The family of a config.json's `model_type`. also: more of what was found, for the message. Raises
        ModelLoadError that names the known ones.
        """
        if model_type not in self._by_type:
            raise ModelLoadError(f"model_type {model_type!r} is not supported: {', '.join(self._by_type)} are{also}")
        return self._by_type[model_type]

    def of_gguf(self, architecture: Any, source: str) -> Family:
        """The family of a GGUF file's `general.architecture`. Raises ModelLoadError that names those that are read."""
        known = {family.gguf_architecture: family for family in self._by_type.values() if family.gguf_architecture}
        if architecture not in known:
            raise ModelLoadError(
                f"{source}: architecture {architecture!r} is not supported: {' and '.join(map(str, known))} are"
            )
        return known[architecture]
