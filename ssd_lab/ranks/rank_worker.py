"""What a rank's process does: load its share, then take part in whatever the first rank runs."""

from __future__ import annotations

import os
import time
import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch

from ssd_lab.common.device_guard import current, door
from ssd_lab.execution.make_executor import make_executor
from ssd_lab.execution.structure import unflatten
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.group import Group
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.ranks.joining import join
from ssd_lab.ranks.meeting import Meeting
from ssd_lab.ranks.messages import Allocate, Load, Program, RankReport, Run
from ssd_lab.rounds.runner import StepRunner


@dataclass(frozen=True)
class Share:
    """Which model, how it is loaded, and on which device: arguments of `load_model`. role: what it is to a run. fit: a
    draft's target and its number of tokens, see `Decoder.fitted_to`.
    """

    source: str
    dtype: str
    device: str
    bitwise: bool
    kernels: str
    role: str = "target"
    fit: tuple[ModelConfig, int] | None = None

    def load(self, group: Group, *, progress: bool = False) -> LoadedModel:
        """This rank's part."""
        model = load_model(
            self.source,
            dtype=self.dtype,
            device=self.device,
            bitwise=self.bitwise,
            kernels=self.kernels,
            progress=progress,
            group=group,
        )
        return model if self.fit is None else replace(model, decoder=model.decoder.fitted_to(*self.fit))


@dataclass(frozen=True)
class RankSetup:
    """What a rank's process is told first. threads: of a CPU's process."""

    rank: int
    share: Share
    meeting: Meeting
    threads: int | None

    def make_worker(self) -> RankWorker:
        """The worker, before it has anything."""
        worker = RankWorker(self)
        weakref.finalize(worker, self.meeting.is_over)  # also where the first rank died before anybody met
        return worker


class RankWorker:
    """Handles one message after the other."""

    def __init__(self, setup: RankSetup) -> None:
        self._setup = setup
        self._device = torch.device(setup.share.device)
        self._programs: dict[int, Program] = {}
        self._group: Group | None = None
        self._runner: StepRunner | None = None

    @torch.inference_mode()
    @door(lambda worker: worker._device)
    def handle(self, message: Any) -> Any:
        """The answer; None where nobody waits for one."""
        match message:
            case Run():
                self._run(self._programs[message.number])
            case Program():
                self._programs[message.number] = message
            case Load():
                return self._load()
            case Allocate():
                return self._allocate(message)
        return None

    def background(self) -> None:
        """Nothing: a rank works when it is told."""

    def close(self) -> None:
        """Graphs first: the group's connections are not closed while there is one that uses them."""
        if self._runner is not None:
            self._runner.executor.release()
        if self._group is not None:
            self._group.close()

    def _load(self) -> RankReport:
        start_s = time.perf_counter()
        parent = os.getppid()
        group = join(self._setup.rank, self._setup.meeting, self._device, lambda: os.getppid() == parent)
        self._group, self._model = group, self._setup.share.load(group)
        return report(self._model, start_s)

    def _allocate(self, message: Allocate) -> int:
        decoder = self._model.decoder
        cache = PagedKVCache(decoder.config, message.num_blocks, message.block_size, self._model.dtype, self._device)
        eager = message.eager or not decoder.kernels.captures
        executor = make_executor(self._device, eager=eager, debug_memory=message.debug_memory)
        self._runner = StepRunner(decoder, cache, self._device, executor)
        return cache.bytes

    def _run(self, program: Program) -> None:
        if self._group is None or self._runner is None:
            raise RuntimeError("a rank was told to run before it had its share and its cache")
        packed = torch.empty(program.layout.num_bytes, dtype=torch.uint8, device=self._device)
        inputs = program.layout.unpacked(self._group.agreed(packed))
        self._runner.run(program.phase, unflatten(program.structure, inputs))


def report(model: LoadedModel, start_s: float) -> RankReport:
    """Of what was loaded since then."""
    decoder = model.decoder
    weights = sum(linear.bytes for linear in decoder.linears())
    weights += decoder.embedding.numel() * decoder.embedding.element_size()
    return RankReport(
        device=str(decoder.device),
        process_id=os.getpid(),
        weight_bytes=weights,
        free_bytes=_free_bytes(decoder.device),
        load_s=time.perf_counter() - start_s,
        invariant=decoder.row_padding.invariant,
    )


def _free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return 0  # all ranks share the machine's: the first one looks
    with current(device):
        free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
