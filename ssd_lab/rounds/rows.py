"""The sequences of one round, on the host and as tensors, and the forward passes built from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ssd_lab.decoding.sampling import SamplingBatch
from ssd_lab.errors import ProposerError
from ssd_lab.execution.host_copy import sent
from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.places import causal_places
from ssd_lab.kernels.step_input import StepInput

SamplingRow = tuple[float, int, float, float, int]  # temperature, top_k, top_p, min_p, seed


@dataclass(frozen=True)
class KnownState:
    """Where the host knows how far the rows' texts have come. tensor: `[3, rows]`, int64, on the host: committed tokens
    L of each, and the tokens at L - 2 and L - 1.
    """

    tensor: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], previous_tokens: Sequence[int], last_tokens: Sequence[int]) -> KnownState:
        """From one number for each row."""
        return cls(torch.tensor([lengths, previous_tokens, last_tokens], dtype=torch.int64))

    @property
    def longest(self) -> int:
        """The largest length."""
        return int(self.tensor[0].max())


@dataclass(frozen=True)
class StateOnDevice:
    """The same where the host has not read the outcome of the round before yet.

    tensor: the same on the device, perhaps followed by columns of padding. longest: a bound on the lengths.
    """

    tensor: torch.Tensor
    longest: int


@dataclass(frozen=True)
class RowBatch:
    """The sequences of one round, in order. state: how far each text has come. block_tables: each sequence's blocks.
    sampling: each request's settings.
    """

    state: KnownState | StateOnDevice
    block_tables: list[list[int]]
    sampling: list[SamplingRow]

    def __len__(self) -> int:
        return len(self.block_tables)

    @property
    def known(self) -> KnownState:
        """The state on the host. Raises ProposerError where it lies on the device."""
        if isinstance(self.state, StateOnDevice):
            raise ProposerError(
                "the lengths and last tokens of these rows lie on the device: the outcome of the round before was not "
                "read yet. A proposer that reads them on the host must leave `needs_outcomes` True"
            )
        return self.state

    @cached_property
    def lengths(self) -> list[int]:
        """Committed tokens of each; see `known`."""
        return self.known.tensor[0].tolist()

    @cached_property
    def previous_tokens(self) -> list[int]:
        """The last token but one of each; see `known`."""
        return self.known.tensor[1].tolist()

    @cached_property
    def last_tokens(self) -> list[int]:
        """The last token of each; see `known`."""
        return self.known.tensor[2].tolist()

    @property
    def all_greedy(self) -> bool:
        """Does every request sample at temperature 0?"""
        return all(row[0] == 0 for row in self.sampling)

    @property
    def sampled(self) -> list[bool]:
        """Which requests sample at a temperature above 0?"""
        return [row[0] != 0 for row in self.sampling]

    def select(self, rows: Sequence[int]) -> RowBatch:
        """Some of the rows, which the host must know."""
        return RowBatch(
            KnownState(self.known.tensor[:, list(rows)]),
            [self.block_tables[row] for row in rows],
            [self.sampling[row] for row in rows],
        )


@dataclass(frozen=True)
class RowTensors:
    """The same rows on a device, `[batch]` each (tables: `[batch, width]`), perhaps followed by padding rows of zeros.

    tree_starts: where in a sequence's table its scratch blocks begin, in tokens (behind its own blocks).
    """

    lengths: torch.Tensor
    previous_tokens: torch.Tensor
    last_tokens: torch.Tensor
    tree_starts: torch.Tensor
    num_drafted: torch.Tensor
    tables: torch.Tensor
    sampling: SamplingBatch

    def __len__(self) -> int:
        return self.lengths.shape[0]


@dataclass(frozen=True)
class Bounds:
    """What the host knows of rows on a device: the most that their lengths can be, and blocks in the longest table,
    scratch blocks left out.
    """

    length: int
    table: int


def padded_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """With as many rows as the phase computes; what the further ones hold does not matter."""
    missing = rows - tensor.shape[0]
    return tensor if missing == 0 else torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])


@dataclass(frozen=True)
class CausalRun:
    """Consecutive positions of each sequence, `[batch, count]`, and where their K/V goes: made once, cut into forwards.

    A position may be -1 (there is no token before the first): that row's result is meaningless and goes nowhere.
    """

    positions: torch.Tensor
    write_slots: torch.Tensor
    prefix_lengths: torch.Tensor
    tables: torch.Tensor
    longest_start: int

    @classmethod
    def starting(
        cls,
        kernels: Kernels[Any],
        starts: torch.Tensor,
        count: int,
        tables: torch.Tensor,
        block_size: int,
        *,
        longest: int,
    ) -> CausalRun:
        """Positions `starts[b]` .. `starts[b] + count - 1` of each sequence; no start lies beyond `longest`."""
        return cls(*kernels.causal_places(starts, count, tables, block_size), tables, longest)

    def behind(self, count: int) -> CausalRun:
        """The positions after the first `count`."""
        return CausalRun(
            self.positions[:, count:],
            self.write_slots[:, count:],
            self.prefix_lengths[:, count:],
            self.tables,
            self.longest_start + count,
        )

    def step(self, token_ids: torch.Tensor, start: int, stop: int) -> StepInput:
        """A forward over `token_ids` `[batch, stop - start]` at that part of the run, each row seeing all before it."""
        return StepInput(
            token_ids=token_ids,
            positions=self.positions[:, start:stop],
            write_slots=self.write_slots[:, start:stop],
            block_tables=self.tables,
            prefix_lengths=self.prefix_lengths[:, start:stop],
            context_length=self.longest_start + stop,
        )


def causal_step(
    kernels: Kernels[Any],
    token_ids: torch.Tensor,
    starts: torch.Tensor,
    tables: torch.Tensor,
    block_size: int,
    *,
    longest: int,
) -> StepInput:
    """One forward over `token_ids` `[batch, rows]` at `starts[b]`, `starts[b] + 1`, ..., each seeing all before it."""
    rows = token_ids.shape[1]
    return CausalRun.starting(kernels, starts, rows, tables, block_size, longest=longest).step(token_ids, 0, rows)


def causal_step_at(
    token_ids: torch.Tensor, starts: Sequence[int], block_tables: Sequence[Sequence[int]], block_size: int
) -> StepInput:
    """`causal_step` for starts and block tables that the host holds as lists; short tables are padded with block 0."""
    device = token_ids.device
    width = max(len(table) for table in block_tables)
    tables = sent([[*table, *[0] * (width - len(table))] for table in block_tables], device)
    places = causal_places(sent(starts, device), token_ids.shape[1], tables, block_size)
    return CausalRun(*places, tables, max(starts)).step(token_ids, 0, token_ids.shape[1])
