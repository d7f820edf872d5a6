"""Bring the K/V of an accepted path to where committed tokens have theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import pad

from ssd_lab.execution.phase import Phase
from ssd_lab.kernels.places import slots_of
from ssd_lab.rounds.rows import RowTensors
from ssd_lab.rounds.runner import StepRunner


def move_path(runner: StepRunner, rows: RowTensors, sources: torch.Tensor) -> None:
    """Copy K/V from `sources` `[batch, depth]`, counted from the first place behind the committed tokens, to the places
    0, 1, ... there; -1 leaves a place alone. Every layer reads all that it moves before it writes.

    The rotation of a key is that of its position in the text, which it already has, so nothing is computed.
    """
    places = torch.arange(sources.shape[1], device=sources.device)
    moves = (sources >= 0) & (sources != places)
    start = rows.lengths[:, None]
    read, write = (
        torch.where(moves, slots_of(start + offset, rows.tables, runner.block_size), 0).view(-1)
        for offset in (sources, places)
    )
    for layer in runner.cache.layers:
        layer.index_copy_(0, write, layer.index_select(0, read))


@dataclass(frozen=True)
class KeepPathInputs:
    """paths `[batch, depth]` (then -1): the accepted nodes of the trees that were grown; written: see `GrownTree`."""

    rows: RowTensors
    paths: torch.Tensor
    written: torch.Tensor


@dataclass(frozen=True)
class KeepPathPhase(Phase[StepRunner, KeepPathInputs, torch.Tensor]):
    """What a draft keeps of an accepted path. The last node is fed again next round, so only those before it are moved;
    all of them were fed.

    It may run twice, as a capture makes it: nodes were written behind all places that they are moved to.
    """

    name: ClassVar[str] = "keep_path"

    def run(self, runner: StepRunner, inputs: KeepPathInputs) -> torch.Tensor:
        """Returns where K/V was moved from, `[batch, depth]`."""
        paths = inputs.paths
        goes_on = pad(paths[:, 1:], (0, 1), value=-1) >= 0
        sources = torch.where(goes_on, inputs.written.gather(1, paths.clamp(min=0)), -1)
        move_path(runner, inputs.rows, sources)
        return sources
