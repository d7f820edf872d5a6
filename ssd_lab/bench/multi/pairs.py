"""Pairs of models to measure: the bundled one, published shapes with inflated weights, or models of yours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ssd_lab import demo
from ssd_lab.bench.config import BUNDLED
from ssd_lab.bench.inflated import SMALL_DRAFT, SMALL_TARGET
from ssd_lab.bench.names import require_local, resolve_model
from ssd_lab.errors import ConfigError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.models.inflate.geometry import GEOMETRIES
from ssd_lab.models.inflate.source import inflated_source, split_inflated
from ssd_lab.settings import settings


@dataclass(frozen=True)
class Pair:
    """name: as it was asked for. target, draft: as models are named anywhere."""

    name: str
    target: str
    draft: str

    @classmethod
    def read(cls, text: str) -> Pair:
        """`bundled`, or `target,draft`, each a geometry (`llama-8b`: its shape with inflated weights), a folder, a
        .gguf file or a hub id that is here. Raises ConfigError or ModelLoadError.
        """
        if text == BUNDLED:
            return cls(BUNDLED, str(demo.TARGET), str(demo.DRAFT))
        parts = text.split(",")
        if len(parts) != 2 or not all(parts):
            raise ConfigError(f"--pair {text!r}: give target,draft, for example llama-8b,llama-1b, or {BUNDLED}")
        return cls(text, _source(parts[0], SMALL_TARGET), _source(parts[1], SMALL_DRAFT))

    @property
    def is_bundled(self) -> bool:
        """The pair of the package, whose EAGLE3 head is known."""
        return self.name == BUNDLED

    @property
    def shape(self) -> ModelConfig:
        """The target's."""
        return _shape(self.target)

    def is_like(self, geometry: str) -> bool:
        """Has the target this published shape?"""
        own, other = self.shape, GEOMETRIES[geometry].config
        sizes = ("hidden_size", "num_layers", "num_heads", "mlp_size")
        return all(getattr(own, name) == getattr(other, name) for name in sizes)

    def weight_bytes(self, *, each: int = 2) -> int:
        """Of the target, so many bytes a weight."""
        return self.shape.num_parameters * each


def _source(name: str, small: str) -> str:
    if name.lower() in GEOMETRIES:
        return inflated_source(name.lower(), small)
    return require_local(resolve_model(name, settings=settings()), settings=settings())


@lru_cache(maxsize=16)
def _shape(source: str) -> ModelConfig:
    inflated = split_inflated(source)
    return GEOMETRIES[inflated[0]].config if inflated else open_checkpoint(source).config
