"""One rank's part of a target, timed on one device: what a target over several devices is priced with."""

from __future__ import annotations

import itertools

import torch

from ssd_lab.errors import ConfigError
from ssd_lab.models.loader import load_model
from ssd_lab.models.share import SUMS_A_LAYER
from ssd_lab.profile import points
from ssd_lab.profile.measure import OnPoint, Sizes, fits, measure_target
from ssd_lab.profile.phase_times import Work
from ssd_lab.profile.points import Point, SlicePoints
from ssd_lab.ranks.lone_rank import LoneRank


@torch.inference_mode()
def measure_slice(
    source: str | None,
    ranks: int,
    sizes: Sizes,
    *,
    device: str,
    dtype: str = "auto",
    eager: bool = False,
    on_point: OnPoint = lambda point: None,
) -> SlicePoints:
    """Load the first of so many ranks' part, and time it at the sizes at which the whole target is timed. Raises
    ConfigError where the model cannot be shared by so many, or has no name to load it by.
    """
    if source is None:
        raise ConfigError("the part of one rank is loaded by name, and this target has none")
    model = load_model(source, dtype=dtype, device=device, group=LoneRank(ranks))
    found: list[Point] = []

    def add(point: Point) -> None:
        found.append(point)
        on_point(point)

    for context, batch in itertools.product(sizes.contexts, sizes.batches):
        work = Work(batch, context)
        if fits(model, work):
            measure_target(model, work, sizes, eager, add, role=points.rank_of(ranks))
    return SlicePoints(ranks, SUMS_A_LAYER * model.config.num_layers, found)
