"""Parts of prompts as rows of one forward: cut into lines of equally many rows, several of a long text.

K/V of all rows of a layer is written before its attention begins, so lines of one text may stand in one forward: a row
sees what stands before it, whichever line holds that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from ssd_lab.execution.graphs import context_bucket
from ssd_lab.execution.host_copy import sent
from ssd_lab.kernels.places import slots_of
from ssd_lab.kernels.step_input import StepInput

LINE_ROWS = (64, 32, 16, 8)  # rows of a line that are tried
MANY_LINES = (64, 32, 16)  # the same of many rows on a GPU
GRAPH_LINE = 32  # rows of a line where shapes are to recur
# rows of a step that recurs; the work of more takes longer than its launches
GRAPH_ROWS = (64, 128, 192, 256, 384, 512, 640, 768, 896, 1024)
GRAPH_CONTEXT = 2048  # tokens; the contexts of steps that recur are planned for in powers of four from here on
WASTE = 1.1  # longer lines are better, as long as padding adds no more than a tenth of the rows


@dataclass(frozen=True)
class PromptPart:
    """Tokens of a text that stand at `start` and after it. block_table: the text's blocks."""

    token_ids: list[int]
    start: int
    block_table: list[int]


@dataclass(frozen=True)
class Line:
    """`count` tokens of the part number `part`, from its token `first` on."""

    part: int
    first: int
    count: int


@dataclass(frozen=True)
class PromptLines:
    """A step on the device. starts, counts `[lines]`: where a line's first row stands in its text, and how many rows it
    has; what follows these is padding. token_ids `[lines, rows]`. tables `[lines, width]`: the text's blocks, then 0.
    """

    starts: torch.Tensor
    counts: torch.Tensor
    token_ids: torch.Tensor
    tables: torch.Tensor

    def step(self, block_size: int, context_length: int) -> StepInput:
        """The forward. A row of padding sees nothing, and what it writes goes to block 0."""
        index = torch.arange(self.token_ids.shape[1], device=self.token_ids.device)
        places = torch.where(index < self.counts[:, None], self.starts[:, None] + index, -1)
        return StepInput(
            token_ids=self.token_ids,
            positions=places.clamp(min=0),
            write_slots=slots_of(places, self.tables, block_size),
            block_tables=self.tables,
            prefix_lengths=places + 1,
            context_length=context_length,
        )


@dataclass(frozen=True)
class PromptStep:
    """Lines of one forward, of so many rows each. size: how many lines are computed, padding included. context: the
    context length to plan for. recurs: are these numbers among the few that come again and again?
    """

    lines: list[Line]
    rows: int
    size: int
    context: int
    recurs: bool

    def of_parts(self) -> Iterator[tuple[int, int, list[Line]]]:
        """Of each part in turn: its number, the number of its first line here, and its lines."""
        first = 0
        for part, own in groupby(self.lines, key=lambda line: line.part):
            lines = list(own)
            yield part, first, lines
            first += len(lines)

    def placed(self, parts: Sequence[PromptPart], block_size: int, device: torch.device) -> PromptLines:
        """On the device, in one copy."""
        if self.recurs:
            width = -(-self.context // block_size)
        else:
            width = max(len(parts[line.part].block_table) for line in self.lines)
        size, rows = self.size, self.rows
        packed = np.zeros(size * (2 + rows + width), dtype=np.int64)
        starts, counts, tokens, tables = np.split(packed, np.cumsum([size, size, size * rows]))
        token_lines, table_lines = tokens.reshape(size, rows), tables.reshape(size, width)
        for number, first, lines in self.of_parts():
            part = parts[number]
            table = part.block_table[:width]
            table_lines[first : first + len(lines), : len(table)] = table
            for own, line in enumerate(lines, start=first):
                starts[own], counts[own] = part.start + line.first, line.count
                token_lines[own, : line.count] = part.token_ids[line.first : line.first + line.count]
        on_device = sent(torch.from_numpy(packed), device).split([size, size, size * rows, size * width])
        return PromptLines(on_device[0], on_device[1], on_device[2].view(size, rows), on_device[3].view(size, width))


def cut_into_steps(parts: Sequence[PromptPart], most_rows: int, *, recurring: bool) -> list[PromptStep]:
    """Every token of the parts in forwards of at most `most_rows` rows, padding included; a part's tokens in order.

    recurring: in few different shapes, so that they can be captured. Otherwise no row more is computed than lines of
    equal length ask for, and texts that differ much in length go apart: on a CPU each line costs what the longest does.
    """
    if recurring:
        rows = GRAPH_LINE * sum(-(-len(part.token_ids) // GRAPH_LINE) for part in parts)
        few = min(rows, most_rows) <= GRAPH_ROWS[-1]
        return list(_steps(parts, range(len(parts)), most_rows, (GRAPH_LINE,) if few else MANY_LINES, recurring=few))
    steps: list[PromptStep] = []
    for _, alike in groupby(range(len(parts)), key=lambda number: context_bucket(_stop(parts[number]))):
        numbers = list(alike)
        longest = min(most_rows, max(len(parts[number].token_ids) for number in numbers))
        steps += _steps(parts, numbers, most_rows, (longest, *LINE_ROWS), recurring=False)
    return steps


def _steps(
    parts: Sequence[PromptPart], numbers: Sequence[int], most_rows: int, tried: Sequence[int], *, recurring: bool
) -> Iterator[PromptStep]:
    rows = _line_rows([len(parts[number].token_ids) for number in numbers], [r for r in tried if r <= most_rows])
    lines = [
        Line(number, first, min(rows, len(parts[number].token_ids) - first))
        for number in numbers
        for first in range(0, len(parts[number].token_ids), rows)
    ]
    together = most_rows // rows
    for begin in range(0, len(lines), together):
        own = lines[begin : begin + together]
        context = max(parts[line.part].start + line.first + line.count for line in own)
        if recurring:
            bucket = next(bucket for bucket in GRAPH_ROWS if bucket >= len(own) * rows)
            yield PromptStep(own, rows, bucket // rows, _graph_context(context), recurs=True)
        else:
            yield PromptStep(own, max(line.count for line in own), len(own), context, recurs=False)


def _line_rows(lengths: Sequence[int], tried: Sequence[int]) -> int:
    """The largest of the numbers of rows that were tried with which padding is small."""
    computed = {rows: sum(-(-length // rows) * rows for length in lengths) for rows in tried}
    least = min(computed.values())
    return max(rows for rows, total in computed.items() if total <= WASTE * least)


def _graph_context(context: int) -> int:
    bound = GRAPH_CONTEXT
    while bound < context:
        bound *= 4
    return bound


def _stop(part: PromptPart) -> int:
    return part.start + len(part.token_ids)
