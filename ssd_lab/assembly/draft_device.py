"""The memory of a draft that has a device of its own, beside the target's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ssd_lab.assembly.memory_plan import MemoryPlan
from ssd_lab.assembly.memory_reader import MemoryReader, reader_of
from ssd_lab.assembly.planning import MemoryPlanner


class TwoPlanners:
    """Plans both devices: there are as many KV blocks as both have room for."""

    def __init__(self, planner: MemoryPlanner, device: torch.device, reader: MemoryReader) -> None:
        self._name = f"draft, {device}"
        self._target = replace(planner, roles=("target",))
        self._draft = replace(planner, roles=("draft",), device=device, reader=reader)

    def before_loading(self) -> MemoryPlan:
        """See `MemoryPlanner`."""
        return self._target.before_loading().beside(self._name, self._draft.before_loading())

    def once_loaded(self) -> MemoryPlan:
        """See `MemoryPlanner`."""
        return self._target.once_loaded().beside(self._name, self._draft.once_loaded())


@dataclass(frozen=True)
class _Share:
    """What one of `count` drafts has of a device."""

    reader: MemoryReader
    count: int

    def free_bytes(self) -> int | None:
        """An equal part."""
        free = self.reader.free_bytes()
        return None if free is None else free // self.count

    def peak_of(self, function: Callable[[], Any]) -> int:
        """See `MemoryReader`."""
        return self.reader.peak_of(function)


def planner_of(planner: MemoryPlanner, drafts: Iterable[torch.device]) -> MemoryPlanner | TwoPlanners:
    """What plans the memory of a run. planner: of both models on the target's device. drafts: the device of each draft
    on this host; where most of them share a GPU is the least room.
    """
    devices = Counter(device for device in drafts if device.type == "cuda")
    if planner.draft is None or planner.ranks > 1 or not devices or planner.device in devices:
        return planner
    device, count = devices.most_common(1)[0]
    return TwoPlanners(planner, device, _Share(reader_of(device), count))
