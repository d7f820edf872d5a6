"""A target over several devices, before it runs: its ranks are started, and their memory is told beside the first's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssd_lab.assembly.memory_plan import MemoryPlan
from ssd_lab.assembly.memory_reader import MemoryReader
from ssd_lab.assembly.planning import MemoryPlanner
from ssd_lab.config import EngineConfig
from ssd_lab.errors import ConfigError
from ssd_lab.hosts.places import Place
from ssd_lab.models.families import FAMILIES
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, resolve_dtype
from ssd_lab.ranks.messages import RankReport
from ssd_lab.ranks.rank_worker import Share
from ssd_lab.ranks.team import RankTeam


def open_team(
    target: LoadedModel | str, config: EngineConfig, places: Sequence[Place], *, threads: int | None, progress: bool
) -> RankTeam:
    """Start the ranks, each of which loads its share. threads: of each on a CPU. Raises ConfigError for a model that
    other processes cannot load, and what loading it raises.
    """
    share = Share(
        source=_name_of(target),
        dtype=_dtype_of(target, config, places[0].device),
        device=places[0].device,
        bitwise=config.bitwise,
        kernels=config.kernels,
    )
    return RankTeam(share, places, threads=threads, limit_s=config.timeout_s, progress=progress)


def plan_of_ranks(planner: MemoryPlanner, team: RankTeam) -> MemoryPlan:
    """With the models in place: the first rank's plan, and what the others have. There are as many KV blocks as the
    fullest rank has room for.
    """
    planner = replace(planner, reader=FullestRank(planner.reader, team.reports))
    with team.alone():
        plan = planner.once_loaded()
    config, dtype = team.model.config, team.model.dtype
    blocks = plan.num_blocks * PagedKVCache.bytes_per_block(config, planner.config.block_size, dtype)
    others = {
        f"rank {rank}, {report.device}": {"target weights": report.weight_bytes, "KV blocks": blocks}
        for rank, report in enumerate(team.reports)
        if rank
    }
    return replace(plan, others=others)


@dataclass(frozen=True)
class FullestRank:
    """Reads the first rank's device, and has less free if another rank has; CPUs of one machine share its memory."""

    own: MemoryReader
    reports: Sequence[RankReport]

    def free_bytes(self) -> int | None:
        """On the device that has the least."""
        free = self.own.free_bytes()
        others = [report.free_bytes for report in self.reports[1:]]
        if free is None:
            return None
        return min(free, *others) if all(others) else free // len(self.reports)

    def peak_of(self, function: Callable[[], Any]) -> int:
        """The first rank's: all run steps of the same size."""
        return self.own.peak_of(function)


def _name_of(target: LoadedModel | str) -> str:
    """What every rank loads."""
    name = target if isinstance(target, str) else target.source
    if name is None:
        raise ConfigError(
            "the target was made in memory, and the other ranks are processes that load it by name: save it, and give "
            "its folder, .gguf file or hub id, or give it one device"
        )
    if isinstance(target, LoadedModel) and target.config.model_type not in FAMILIES.built_in:
        raise ConfigError(
            f"the target's family {target.config.model_type!r} was registered by this program, and the other ranks are "
            "processes that do not know it: give the target one device"
        )
    return str(name)


def _dtype_of(target: LoadedModel | str, config: EngineConfig, device: str) -> str:
    """The same one on every rank."""
    dtype = target.dtype if isinstance(target, LoadedModel) else resolve_dtype(config.dtype, device)
    return str(dtype).removeprefix("torch.")
