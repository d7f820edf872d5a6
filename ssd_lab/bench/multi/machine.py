"""What there is to measure on: devices by name, and how much a model of one of them may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ssd_lab.bench.inflated import GPU_SHARE
from ssd_lab.errors import ConfigError

ASSUMED_BYTES = 80 * 10**9  # of a GPU that is only planned for


@dataclass(frozen=True)
class Machine:
    """devices: by name, as in a placement. room_bytes: of weights on one device; None where it does not matter.
    present: are they all here, or only planned for?
    """

    devices: tuple[str, ...]
    room_bytes: int | None
    present: bool

    @classmethod
    def of(cls, names: Sequence[str] | None) -> Machine:
        """names: None takes every GPU that is here. Raises ConfigError for fewer than two devices, or names that do not
        go together.
        """
        here = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        devices = here if names is None else tuple(names)
        if len(devices) < 2:
            found = f"{len(here)} GPU{'s are' if len(here) != 1 else ' is'} here" if names is None else f"{devices}"
            raise ConfigError(
                f"{found}, and this measures two or more: name them with --devices cuda:0,cuda:1, or try everything "
                "on processes of this CPU with --devices cpu,cpu"
            )
        if all(name == "cpu" for name in devices):
            return cls(devices, None, present=True)
        if any(not name.startswith("cuda:") or not name[5:].isdigit() for name in devices):
            raise ConfigError(f"--devices {','.join(devices)}: name GPUs (cuda:0,cuda:1) or processes (cpu,cpu)")
        if len({*devices}) < len(devices):
            raise ConfigError(f"--devices {','.join(devices)} names a GPU twice: name each once")
        present = {*devices} <= {*here}
        memory = (
            min(torch.cuda.get_device_properties(name).total_memory for name in devices) if present else ASSUMED_BYTES
        )
        return cls(devices, int(GPU_SHARE * memory), present=present)

    @property
    def on_cpu(self) -> bool:
        """Are they processes of a CPU?"""
        return self.devices[0] == "cpu"

    @property
    def count(self) -> int:
        """How many."""
        return len(self.devices)

    def ranks_for(self, num_bytes: int) -> int | None:
        """The fewest devices, a power of two, that hold so many bytes of weights; None if all of them do not."""
        ranks = 1
        while ranks <= self.count:
            if self.room_bytes is None or num_bytes / ranks <= self.room_bytes:
                return ranks
            ranks *= 2
        return None
