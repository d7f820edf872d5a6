"""Phases alone on one device, and the rounds of one device: what the simulator prices several devices with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.bench.multi.loading import loaded
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.common.device_guard import current
from ssd_lab.profile.measure import Sizes, hardware_profile, measure_phases
from ssd_lab.profile.rounds import measure_rounds

OF_ONE_DEVICE = ("autoregressive", "sync_chain", "async_tree")


@dataclass(frozen=True)
class PhasesCell(Cell):
    """A pair on one device."""

    piece: ClassVar[str] = "profile"

    pair: Pair
    device: str
    sizes: Sizes
    dtype: str = "auto"

    @property
    def key(self) -> str:
        """See `Cell`."""
        return f"{self.piece}/{self.pair.name}"

    @property
    def group(self) -> str:
        """See `Cell`."""
        return self.key

    @property
    def estimate_s(self) -> float:
        """Phases, and whole runs for what a host adds to them."""
        return 60.0 + 30.0 * len(self.sizes.batches)

    def run(self, kept: Kept) -> dict[str, Any]:
        """The hardware profile, every point, and rounds of one device beside what its phases say."""
        device = torch.device(self.device)
        with current(device):
            target, draft = (
                loaded(kept, source, device=self.device, dtype=self.dtype)
                for source in (self.pair.target, self.pair.draft)
            )
            measured = measure_phases(target, draft, self.sizes)
            phases = hardware_profile(measured, self.pair.name)
            rounds = measure_rounds(target, draft, self.sizes, phases=phases, only=OF_ONE_DEVICE)
            profile = hardware_profile(dataclasses.replace(measured, rounds=rounds), self.pair.name)
        return {
            "profile": profile.model_dump(mode="json"),
            "phases": phases.model_dump(mode="json"),
            "bandwidth": measured.bandwidth,
            "points": [dataclasses.asdict(point) for point in measured.points],
            "rounds": [dataclasses.asdict(point) for point in rounds],
            "unusable": measured.unusable,
        }
