"""The memory of a draft that has a device of its own, beside the target's."""

from __future__ import annotations

from dataclasses import replace

import torch

from ssd_lab.assembly.memory_plan import MemoryPlan
from ssd_lab.assembly.memory_reader import MemoryReader
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
