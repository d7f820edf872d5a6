"""Where each process of a run works: on which device, and what starts it there."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.devices import DevicePlacement
from ssd_lab.hosts.launcher import Launcher
from ssd_lab.links.child_process import CHILDREN, Starter

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """device: by torch's name, there. host: what tells hosts apart. address: of that host, for the others. launcher:
    what starts a process there; None: the process that needs it.
    """

    device: str
    host: str = ""
    address: str = LOOPBACK
    launcher: Launcher | None = None

    @property
    def starter(self) -> Starter:
        """Of processes there."""
        return self.launcher or CHILDREN

    def __str__(self) -> str:
        return self.device if self.launcher is None else f"{self.device} at rank {self.launcher.rank} of torchrun"


@dataclass(frozen=True)
class Places:
    """The devices of a placement, found. asked: as the caller named them."""

    asked: DevicePlacement
    target: tuple[Place, ...]
    draft: tuple[Place, ...]

    @classmethod
    def here(cls, asked: DevicePlacement) -> Places:
        """All on this host."""
        return cls(asked, tuple(map(Place, asked.target)), tuple(map(Place, asked.draft)))

    @property
    def first_draft(self) -> Place:
        """Where the draft works, or the first of several."""
        return self.draft[0] if self.draft else self.target[0]

    @property
    def draft_is_elsewhere(self) -> bool:
        """Does a process of torchrun start the draft?"""
        return self.first_draft.launcher is not None

    @property
    def num_gpus(self) -> int:
        """How many are used."""
        return len({(place.host, place.device) for place in (*self.target, *self.draft) if place.device != "cpu"})
