"""Who computes where, for a number of devices: the placements that the report compares."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.bench.multi.machine import Machine


@dataclass(frozen=True)
class Place:
    """A placement as it is written. ranks: of the target. drafts: devices of their own; 0: the target's first drafts
    too. may_be_refused: the numbers need not divide: words are an answer, too.
    """

    text: str
    ranks: int
    drafts: int
    may_be_refused: bool = False

    @property
    def num_devices(self) -> int:
        """Devices that work."""
        placed = {*self._named("target"), *self._named("draft")}
        return self.ranks + self.drafts if placed == {"cpu"} else len(placed)

    @property
    def num_draft_devices(self) -> int:
        """Devices that the drafts have of their own; each process of a CPU is one."""
        named = self._named("draft")
        return len(named) if "cpu" in named else len(set(named))

    @property
    def is_by_stream(self) -> bool:
        """Does the draft work on a stream of the engine's process? One alone on a GPU does; others are processes."""
        return self.drafts == 1 and "cpu" not in self._named("draft")

    def _named(self, role: str) -> list[str]:
        parts = dict(part.split("=") for part in self.text.split())
        return parts[role].split(",") if role in parts else []


def place(machine: Machine, ranks: int, drafts: int = 0, *, may_be_refused: bool = False) -> Place:
    """The target on the first devices, the drafts on those behind; too few of these are taken in turn."""
    own = machine.devices[ranks:]
    names = [own[number % len(own)] for number in range(drafts)]
    text = f"target={','.join(machine.devices[:ranks])}" + (f" draft={','.join(names)}" if names else "")
    return Place(text, ranks, drafts, may_be_refused)


def checked_places(machine: Machine) -> list[Place]:
    """Those whose texts are compared: one target with one and two drafts, the largest shared targets with and without
    drafts of their own, and a number of ranks that may not divide.
    """
    count, shared = machine.count, _below(machine.count)
    found = [place(machine, 1, 1)]
    if count <= 3:
        found.append(place(machine, 1, 2))
    found += with_drafts(machine, shared) if shared > 1 else []
    found.append(place(machine, _power_within(count)))
    odd = next((ranks for ranks in (count, count - 1) if ranks > 2 and not _is_power(ranks)), None)
    if odd is not None:
        found.append(place(machine, odd, may_be_refused=True))
    return list(dict.fromkeys(found))


def with_drafts(machine: Machine, ranks: int) -> list[Place]:
    """So many ranks with 1, 2, 4, ... drafts on devices of their own."""
    found, drafts = [], 1
    while ranks + drafts <= machine.count:
        found.append(place(machine, ranks, drafts))
        drafts *= 2
    return found


def all_share(machine: Machine, least: int) -> list[Place]:
    """Shared targets of `least` ranks or more, up to all devices; their first one drafts too."""
    found, ranks = [], least
    while ranks <= machine.count:
        found.append(place(machine, ranks))
        ranks *= 2
    return found


def _below(count: int) -> int:
    """The largest power of two that leaves a device for a draft."""
    return _power_within(count - 1)


def _power_within(count: int) -> int:
    return 1 << (count.bit_length() - 1)


def _is_power(count: int) -> bool:
    return count & (count - 1) == 0
