"""Where the rows of a round lie on the device: the same buffers every round, so that a captured graph finds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ssd_lab.decoding.sampling import SamplingBatch, in_float32
from ssd_lab.execution.device_wait import wait_for
from ssd_lab.rounds.rows import Bounds, KnownState, RowBatch, RowTensors, SamplingRow

_STATE = 3  # lengths, previous tokens, last tokens: other ones every round
_LAYOUT = 2  # tree starts, numbers of draft tokens: behind the state, so that both are sent together


class Placement:
    """Copies rows into fixed device buffers, sending only what changed.

    max_rows: the largest batch. width: blocks in the longest table, scratch included. bucket: how many rows to fill for
    a batch of n (the rest are padding rows of zeros, which write to block 0). The tensors that `place` returns are
    views of the buffers: they change with the next call.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        max_rows: int,
        width: int,
        block_size: int,
        scratch: Sequence[Sequence[int]] = (),
        bucket: Callable[[int], int] = lambda rows: rows,
    ) -> None:
        self._bucket, self._block_size, self._scratch = bucket, block_size, scratch
        rows = bucket(max_rows)
        self._state = _Buffer((_STATE + _LAYOUT, rows), torch.int64, device)
        self._tables = _Buffer((rows, width), torch.int64, device)
        self._sampling_ints = _Buffer((2, rows), torch.int64, device)
        self._sampling_floats = _Buffer((3, rows), torch.float32, device)
        self._known_layout: tuple[list[int], list[int], int] | None = None
        self._known: list[list[int]] = [[] for _ in range(rows)]
        self._settings: list[SamplingRow] = []
        self._all_greedy, self._any_filter = True, False
        self._parts: dict[int, tuple[torch.Tensor, ...]] = {}

    def place(self, rows: RowBatch, *, num_drafted: Sequence[int] = ()) -> tuple[RowTensors, Bounds]:
        """The rows on the device, and what the host knows of them."""
        count, bucket = len(rows), self._bucket(len(rows))
        starts = [len(table) * self._block_size for table in rows.block_tables]
        is_new = self._write_layout(starts, list(num_drafted) or [0] * count, bucket)
        if isinstance(rows.state, KnownState):
            state = self._state.writable()[:_STATE]
            state[:, :count] = rows.state.tensor.numpy()
            if bucket > count:
                state[:, count:bucket] = 0
            self._state.send()
        else:
            made = rows.state.tensor
            known = min(bucket, made.shape[1])  # whoever made it may pad to another bucket
            self._state.device[:_STATE, :known].copy_(made[:, :known])
            if known < bucket:
                self._state.device[:_STATE, known:bucket].zero_()
            if is_new:
                self._state.send(_STATE)
        self._place_tables(rows.block_tables, bucket)
        self._place_sampling(rows.sampling, bucket)
        lengths, previous, last, tree_starts, num, tables, temperature, top_p, min_p, top_k, seeds = self._views(bucket)
        sampling = SamplingBatch(temperature, top_k, top_p, min_p, seeds, self._all_greedy, self._any_filter)
        bounds = Bounds(rows.state.longest, max(starts) // self._block_size)
        return RowTensors(lengths, previous, last, tree_starts, num, tables, sampling), bounds

    def _views(self, bucket: int) -> tuple[torch.Tensor, ...]:
        """The buffers' parts for so many rows, made once."""
        if bucket not in self._parts:
            self._parts[bucket] = (
                *self._state.device[:, :bucket].unbind(),
                self._tables.device[:bucket],
                *self._sampling_floats.device[:, :bucket].unbind(),
                *self._sampling_ints.device[:, :bucket].unbind(),
            )
        return self._parts[bucket]

    def buffers(self) -> list[torch.Tensor]:
        """Every buffer that `place` hands out, for an executor that reads them in place."""
        return [
            *(*self._state.device, self._tables.device),
            *(*self._sampling_ints.device, *self._sampling_floats.device),
        ]

    def _write_layout(self, starts: list[int], num_drafted: list[int], bucket: int) -> bool:
        """Into the host array; returns whether anything is new."""
        if (starts, num_drafted, bucket) == self._known_layout:
            return False
        self._known_layout = (starts, num_drafted, bucket)
        layout, count = self._state.writable()[_STATE:], len(starts)
        layout[:, :count] = (starts, num_drafted)
        layout[:, count:bucket] = 0
        return True

    def _place_tables(self, block_tables: Sequence[list[int]], bucket: int) -> None:
        changed = False
        for row in range(bucket):
            table = block_tables[row] if row < len(block_tables) else []
            if self._known[row] == table:
                continue
            changed = True
            self._known[row] = list(table)
            full = [*table, *self._scratch[row]] if table and self._scratch else table
            host = self._tables.writable()[row]
            host[: len(full)] = full
            host[len(full) :] = 0
        if changed:
            self._tables.send()

    def _place_sampling(self, settings: Sequence[SamplingRow], bucket: int) -> None:
        self._all_greedy = all(temperature == 0 for temperature, *_ in settings)
        # a greedy batch filters nothing, and is one graph whatever the settings say
        self._any_filter = not self._all_greedy and any(k > 0 or p < 1.0 or m > 0.0 for _, k, p, m, _ in settings)
        own = [] if self._all_greedy else settings  # where all are greedy nobody reads them, whoever they are
        padded = [*own, *[(0.0, 0, 1.0, 0.0, 0)] * (bucket - len(own))]
        if padded == self._settings[:bucket]:
            return
        self._settings = padded
        temperatures, top_k, top_p, min_p, seeds = zip(*padded, strict=True)
        temperatures = tuple(in_float32(temperature) for temperature in temperatures)
        self._sampling_ints.writable()[:, :bucket] = (top_k, seeds)
        self._sampling_floats.writable()[:, :bucket] = (temperatures, top_p, min_p)
        self._sampling_ints.send()
        self._sampling_floats.send()


class _Buffer:
    """A device tensor and the host array that fills it; on a CPU they are the same memory."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        pinned = torch.zeros(shape, dtype=dtype, pin_memory=device.type == "cuda")
        self._pinned = pinned
        self._host: np.ndarray = pinned.numpy()
        self._sent: torch.Event | None = None
        self.device = pinned if device.type == "cpu" else pinned.to(device)

    def writable(self) -> np.ndarray:
        """The host array, once its last contents have reached the device."""
        if self._sent is not None:
            wait_for(self._sent, "the copy of a round's rows")
        return self._host

    def send(self, first: int = 0) -> None:
        """Bring the device up to date from this row on, behind what its current stream is doing."""
        if self.device is not self._pinned:
            self.device[first:].copy_(self._pinned[first:], non_blocking=True)
            self._sent = self._sent or torch.Event("cuda")
            self._sent.record()
