"""What each replica takes of the machines: the GPUs of its placement, and an equal part of the CPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssd_lab.common.validation import validated
from ssd_lab.config import EngineConfig
from ssd_lab.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """Of one replica; fewer than one CPU where machines have fewer CPUs than there are replicas."""

    cpus: float
    gpus: int


def gpus_of(engines: Iterable[dict[str, Any]], has_gpus: bool) -> int:
    """GPUs that one replica computes on. engines: the fields of each; has_gpus: is there a GPU to be chosen?

    Raises ConfigError for GPUs that are not numbered from 0: which ones a replica gets is Ray's choice.
    """
    return max(_gpus_of(validated(EngineConfig, fields, name="engine"), has_gpus) for fields in engines)


def share_of(machines: Sequence[Mapping[str, float]], replicas: int, gpus: int) -> Share:
    """The most CPUs that each of so many replicas can have. machines: what each has, as Ray says it: `CPU`, `GPU`.

    Raises ConfigError where they have too few GPUs.
    """
    rooms = [int(machine.get("GPU", 0)) // gpus if gpus else replicas for machine in machines]
    if sum(rooms) < replicas:
        held = sum(int(machine.get("GPU", 0)) for machine in machines)
        raise ConfigError(
            f"{replicas} replicas of {gpus} GPU{'s' * (gpus > 1)} were asked for, and there is room for {sum(rooms)} "
            f"({held} GPUs on {len(machines)} machine{'s' * (len(machines) > 1)}): ask for fewer replicas, or for "
            "fewer GPUs in each"
        )
    cpus = [machine.get("CPU", 0.0) for machine in machines]
    for share in range(int(max(cpus)), 0, -1):
        if sum(min(room, int(count // share)) for room, count in zip(rooms, cpus, strict=True)) >= replicas:
            return Share(share, gpus)
    return Share(int(1000 * max(cpus) / replicas) / 1000, gpus)  # on the largest machine all of them have room


def _gpus_of(config: EngineConfig, has_gpus: bool) -> int:
    if config.gpus is not None:
        return config.gpus
    if config.placement is not None:
        names = {*config.placement.target, *config.placement.draft} - {"cpu"}
    elif config.device == "auto":
        return int(has_gpus)
    else:
        names = {"cuda:0" if config.device == "cuda" else config.device} - {"cpu"}
    if names != {f"cuda:{number}" for number in range(len(names))}:
        raise ConfigError(
            f"{', '.join(sorted(names))}: with replicas GPUs are numbered within each, from cuda:0, and Ray chooses "
            "which they are: number them so"
        )
    return len(names)
