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
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.models.share import SUMS_A_LAYER
from ssd_lab.profile.measure import Sizes, hardware_profile, measure_phases
from ssd_lab.profile.rounds import measure_rounds
from ssd_lab.ranks.lone_rank import LoneRank
from ssd_lab.simulate import HardwareProfile, RankSlice

OF_ONE_DEVICE = ("autoregressive", "sync_chain", "async_tree")


@dataclass(frozen=True)
class PhasesCell(Cell):
    """A pair on one device. ranks: how many the target needs; one rank's part of it is timed then, and no rounds."""

    piece: ClassVar[str] = "profile"

    pair: Pair
    device: str
    sizes: Sizes
    dtype: str = "auto"
    ranks: int = 1

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
        if self.ranks > 1:
            return 30.0 + 2e-9 * self.pair.weight_bytes() / self.ranks + 6.0 * len(self.sizes.batches)
        return 60.0 + 30.0 * len(self.sizes.batches)

    def run(self, kept: Kept) -> dict[str, Any]:
        """The hardware profile, every point, and rounds of one device beside what its phases say."""
        with current(torch.device(self.device)):
            target, draft = self._target(kept), loaded(kept, self.pair.draft, device=self.device, dtype=self.dtype)
            measured = measure_phases(target, draft, self.sizes)
            phases = hardware_profile(measured, self.pair.name)
            if self.ranks > 1:
                phases = profile = self._of_a_part(phases, target)
            else:
                rounds = measure_rounds(target, draft, self.sizes, phases=phases, only=OF_ONE_DEVICE)
                measured = dataclasses.replace(measured, rounds=rounds)
                profile = hardware_profile(measured, self.pair.name)
        return {
            "profile": profile.model_dump(mode="json"),
            "phases": phases.model_dump(mode="json"),
            "ranks": self.ranks,
            "bandwidth": measured.bandwidth,
            "points": [dataclasses.asdict(point) for point in measured.points],
            "rounds": [dataclasses.asdict(point) for point in measured.rounds],
            "unusable": measured.unusable,
        }

    def _target(self, kept: Kept) -> LoadedModel:
        if self.ranks == 1:
            return loaded(kept, self.pair.target, device=self.device, dtype=self.dtype)
        return load_model(self.pair.target, dtype=self.dtype, device=self.device, group=LoneRank(self.ranks))

    def _of_a_part(self, phases: HardwareProfile, target: LoadedModel) -> HardwareProfile:
        """With the target's forwards as those of one rank's part."""
        part = RankSlice(
            ranks=self.ranks,
            sums=SUMS_A_LAYER * target.config.num_layers,
            verify_s=phases.verify_s,
            autoregressive_step_s=phases.autoregressive_step_s or phases.verify_s,
        )
        return phases.model_copy(update={"rank_slices": (part,)})
