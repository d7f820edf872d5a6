"""Models that cells of one process share."""

from __future__ import annotations

from ssd_lab.bench.multi.cell import Kept
from ssd_lab.models.loader import LoadedModel, load_model


def loaded(kept: Kept, source: str, *, device: str, dtype: str = "auto", bitwise: bool = True) -> LoadedModel:
    """Loaded once a process."""
    key = f"model {source} {device} {dtype} {bitwise}"
    if key not in kept.things:
        kept.things[key] = load_model(source, dtype=dtype, device=device, bitwise=bitwise, progress=False)
    model: LoadedModel = kept.things[key]
    return model
