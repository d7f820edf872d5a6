"""All ranks of one target, as the engine's process, the first of them, holds them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch

from ssd_lab.errors import ForkedProcessError, RankError, SsdLabError
from ssd_lab.execution.phase import AnyPhase
from ssd_lab.execution.structure import flatten
from ssd_lab.hosts.places import Place
from ssd_lab.models.group import Group
from ssd_lab.models.loader import LoadedModel
from ssd_lab.ranks.joining import call, join, prepare
from ssd_lab.ranks.messages import Allocate, Layout, Load, Program, RankReport, Run
from ssd_lab.ranks.rank_process import RankProcess
from ssd_lab.ranks.rank_worker import RankSetup, Share, report

NUMBERS = 256  # of programs that the ranks keep; then the oldest gives its number away
LOAD_S = 1800.0  # for the slowest rank to load, after this one has: disks may be shared
SETTLE_S = 1.0  # after a failure: for the process that caused it to be seen


class RankTeam:
    """Starts the other ranks, and tells them whatever the first one is about to run. Close it.

    model: the first rank's part. reports: what each rank has, in order. Once a rank is lost, or a step of this one was
    cut short, nothing can be run any more.
    """

    def __init__(self, share: Share, places: Sequence[Place], *, threads: int | None, limit_s: float, progress: bool):
        start_s = time.perf_counter()
        self._owner = os.getpid()
        self._broken: str | None = None
        self._numbers: dict[object, int] = {}  # of programs, the oldest first
        self._next = 0
        self._processes: list[RankProcess] = []
        self.group: Group | None = None
        meeting = call(places, limit_s)
        first = torch.device(places[0].device)
        with ExitStack() as undone:
            undone.callback(self.close)
            undone.callback(meeting.is_over)
            prepare(meeting, first)
            for rank, place in list(enumerate(places))[1:]:
                setup = RankSetup(rank, replace(share, device=place.device), meeting, threads)
                self._processes.append(RankProcess(setup, place))
            for process in self._processes:
                process.started()
            for process in self._processes:
                process.tell(Load())
            with self._together():
                self.group = join(0, meeting, first, self._are_alive)
                self.model: LoadedModel = share.load(self.group, progress=progress)
            others: list[RankReport] = [process.answer(LOAD_S) for process in self._processes]
            self.reports = [report(self.model, start_s), *others]
            undone.pop_all()

    @property
    def invariant(self) -> bool:
        """Do a row's bits depend on that row alone, on every rank?"""
        return all(report.invariant for report in self.reports)

    def allocate(self, num_blocks: int, block_size: int, *, eager: bool, debug_memory: bool) -> None:
        """Each rank makes its KV cache. Raises as `PagedKVCache`."""
        for process in self._processes:
            process.tell(Allocate(num_blocks, block_size, eager, debug_memory))
        for process in self._processes:
            process.answer(LOAD_S)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within this the first rank's model computes without the others, and nothing of meaning."""
        with self._open_group().alone():
            yield

    @contextmanager
    def running(self, phase: AnyPhase, inputs: object) -> Iterator[None]:
        """Around this rank's own share of a phase: the others are told of theirs first.

        Raises RankError, which says what happened to which rank, if one is lost before or within.
        """
        group = self._open_group()
        with self._together():
            group.confirm()
            their_phase, their_inputs = phase.elsewhere(inputs)
            tensors, structure = flatten(their_inputs)
            layout = Layout.of(tensors)
            number = self._number_of(Program(0, their_phase, structure, layout))
            for process in self._processes:
                process.tell(Run(number))
            group.agreed(layout.packed(tensors))
            yield

    def confirm(self) -> None:
        """Raise, as `running` does, if a rank was lost in what ran."""
        if self.group is not None:
            with self._together():
                self.group.confirm()

    def close(self) -> None:
        """End all ranks; calling it twice is fine. In a forked process they are left to their owner."""
        processes, self._processes = self._processes, []
        if os.getpid() != self._owner:
            for process in processes:
                process.abandon()
            return
        group, self.group = self.group, None
        with ExitStack() as closing:
            for process in processes:
                closing.callback(process.close, at_once=self._broken is not None)
            if group is not None:
                closing.callback(group.close)

    def _number_of(self, program: Program) -> int:
        """The number that the ranks know it by; they are told of a new one."""
        key = (program.phase, program.structure, program.layout)
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) == NUMBERS:
                del self._numbers[next(iter(self._numbers))]
            number = self._numbers[key] = self._next % NUMBERS
            self._next += 1
            for process in self._processes:
                process.tell(replace(program, number=number))
        return number

    def _are_alive(self) -> bool:
        return all(process.is_running for process in self._processes)

    def _open_group(self) -> Group:
        if os.getpid() != self._owner:
            raise ForkedProcessError(
                f"the ranks of this target belong to process {self._owner}, of which this one ({os.getpid()}) was "
                "forked: make the LLM in the process that uses it (multiprocessing: start method 'spawn')"
            )
        if self._broken is not None:
            raise RankError(f"{self._broken}: make a new LLM")
        if self.group is None:
            raise RankError("the ranks are closed: make a new LLM")
        return self.group

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What is begun within must be ended: else this rank is at another place than the others."""
        try:
            yield
        except BaseException as error:
            caused = self._cause() if isinstance(error, RankError) else None
            self._broken = str(caused or f"a step of the target was cut short ({type(error).__name__}: {error})")
            if caused is None:
                raise
            raise caused from error

    def _cause(self) -> SsdLabError | None:
        """Why a rank was lost: of those that are gone the one that was not gone for another's sake."""
        end_s = time.monotonic() + SETTLE_S
        while time.monotonic() < end_s and self._are_alive():
            time.sleep(0.01)
        found = [process.lost() for process in self._processes if not process.is_running]
        return min(found, key=_is_in_consequence, default=None)


def _is_in_consequence(error: SsdLabError) -> bool:
    return "failed: RankError" in str(error)
