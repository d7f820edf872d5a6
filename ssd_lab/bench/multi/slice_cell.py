"""One rank's part of a target, alone on one device: what the simulator prices a target over several devices with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.common.device_guard import current
from ssd_lab.profile.measure import Sizes, rank_slice
from ssd_lab.profile.slices import measure_slice


@dataclass(frozen=True)
class SliceCell(Cell):
    """A pair's target, of which one device computes what one of `ranks` would. sizes: as of the whole target."""

    piece: ClassVar[str] = "profile"

    pair: Pair
    device: str
    ranks: int
    sizes: Sizes
    dtype: str = "auto"

    @property
    def key(self) -> str:
        """See `Cell`."""
        return f"{self.piece}/{self.pair.name}/one of {self.ranks} ranks"

    @property
    def group(self) -> str:
        """See `Cell`."""
        return self.key

    @property
    def estimate_s(self) -> float:
        """The process, weights, and forwards of each size."""
        return 20.0 + 2e-9 * self.pair.weight_bytes() / self.ranks + 3.0 * len(self.sizes.batches)

    def run(self, kept: Kept) -> dict[str, Any]:
        """The part as a hardware profile holds it, and every point."""
        with current(torch.device(self.device)):
            measured = measure_slice(self.pair.target, self.ranks, self.sizes, device=self.device, dtype=self.dtype)
        return {
            "slice": rank_slice(measured).model_dump(mode="json"),
            "points": [dataclasses.asdict(point) for point in measured.points],
        }
