"""Ranks on GPUs of one host that write into each other's memory: every sum is one kernel of the step's own stream.

No library is in a step's way, and no host. A kernel that waits for a rank ends when that rank is gone, or in the end;
what it then made is nonsense, and `confirm` says so.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ssd_lab.errors import RankError
from ssd_lab.kernels.backend import PDL_CAPABILITY
from ssd_lab.kernels.product import Partials, Product, Unmade
from ssd_lab.models.group import Group
from ssd_lab.ranks.device_memory import DeviceMemory
from ssd_lab.ranks.distributed import REST_S, within
from ssd_lab.ranks.meeting import Meeting
from ssd_lab.ranks.passing import Passing

if TYPE_CHECKING:
    from ssd_lab.kernels.triton_ops.peer_sums import Inboxes

ALIVE_S = 0.25  # between two looks at whether the other ranks are alive
TRIES_PER_S = 1_000_000  # of a kernel that waits, at most
MOST_TRIES = 2**31 - 1
HALVES = (torch.bfloat16, torch.float16)


class PeerGroup(Group):
    """A rank's place among others whose memory its GPU can write.

    addresses: of every rank's inbox, as this process sees it. limit_s: about as long does a kernel wait for a rank.
    are_alive: of the processes that this one knows; a thread asks now and then. held: what is closed at the end.
    """

    def __init__(
        self,
        rank: int,
        addresses: list[int],
        device: torch.device,
        *,
        limit_s: float,
        are_alive: Callable[[], bool] = lambda: True,
        held: ExitStack | None = None,
    ) -> None:
        from ssd_lab.kernels.triton_ops.peer_sums import PROGRAMS, Inboxes

        super().__init__(rank, len(addresses))
        on_gpu = device.type == "cuda"
        self._device, self._limit_s, self._are_alive = device, limit_s, are_alive
        self._held = held or ExitStack()
        self._state = torch.zeros(2, dtype=torch.int32, pin_memory=on_gpu)
        self._seen = self._state.numpy()  # to read there what a kernel wrote takes no call of torch's
        self._inboxes = Inboxes(
            rank,
            self.size,
            addresses=torch.tensor(addresses, dtype=torch.int64, device=device),
            exchanges=torch.zeros(1 + PROGRAMS, dtype=torch.int32, device=device),
            state=self._state,
            tries=min(MOST_TRIES, int(limit_s * TRIES_PER_S)),
            pdl=on_gpu and torch.version.hip is None and torch.cuda.get_device_capability(device) >= PDL_CAPABILITY,
        )
        self._is_closed = threading.Event()
        arguments = (weakref.ref(self), self._is_closed)
        self._watcher = threading.Thread(target=_watch, args=arguments, name="watching ranks", daemon=True)
        self._watcher.start()

    @classmethod
    def opened(
        cls, rank: int, meeting: Meeting, device: torch.device, are_alive: Callable[[], bool]
    ) -> PeerGroup | str:
        """With all ranks of the meeting, or why not, the same on each. Raises RankError where one does not come."""
        with ExitStack() as undone:
            try:
                passing = Passing(rank, meeting, are_alive)
            except OSError as error:  # the meeting's folder has no sockets, for no rank
                return f"the ranks cannot pass each other anything: {error}"
            undone.callback(passing.close)
            held = undone.enter_context(ExitStack())
            addresses, why = [0] * meeting.size, ""
            own, file = None, None
            try:
                own = _inbox(device, meeting.size)
                held.callback(own.close)
                addresses[rank] = own.address
                file = own.file()
                undone.callback(os.close, file)
            except RankError as error:
                why = str(error)
            why = _first(why, passing.round(why, file))
            if own is not None and not why:
                try:
                    for other, theirs in passing.files.items():
                        memory = DeviceMemory.mapped(device, theirs, own.num_bytes)
                        held.callback(memory.close)
                        addresses[other] = memory.address
                except RankError as error:
                    why = f"{device} cannot write to the others' memory ({error})"
            why = _first(why, passing.round(why))
            if why:
                return why
            return cls(rank, addresses, device, limit_s=meeting.limit_s, are_alive=are_alive, held=held.pop_all())

    def close(self) -> None:
        """Have kernels that still wait end, and free the memory."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        self._watcher.join()
        self._give_up()
        if self._device.type == "cuda" and not within(REST_S, lambda: torch.cuda.synchronize(self._device)):
            late = f"{self._device} did not come to rest within {REST_S:g} s: the memory that its ranks share stays"
            warnings.warn(late, RuntimeWarning, stacklevel=2)
        else:
            self._held.close()

    def confirm(self) -> None:
        """See `Group`."""
        if self._seen[1]:
            raise RankError(
                f"rank {self._seen[1] - 1} did not do its part: it is gone, or took longer than {self._limit_s:g} s"
            )

    def unmade(self, product: Product) -> Product:
        """See `Group`."""
        return self._sum_of(product) or super().total(product)

    def total(self, product: Product) -> torch.Tensor:
        """See `Group`; its bits are those of the sum made there."""
        own = self._sum_of(product)
        return super().total(product) if own is None else own.total()

    def joined(self, columns: torch.Tensor) -> torch.Tensor:
        """See `Group`."""
        if self._is_alone or columns.shape[1] * columns.element_size() % 4:
            return super().joined(columns)
        return self._side_by_side(columns.contiguous().view(torch.int32)).view(columns.dtype)

    def agreed(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Group`."""
        (every,) = self._pieces(tensor)
        return every[0].view(tensor.shape)

    def _gathered(self, own: torch.Tensor) -> Iterator[torch.Tensor]:
        """See `Group`. All in one piece."""
        data = own.contiguous().view(torch.uint8)
        missing = -data.numel() % 4
        words = (F.pad(data, (0, missing)) if missing or data.storage_offset() % 4 else data).view(torch.int32)
        every = self._side_by_side(words.view(1, -1)).view(self.size, -1)
        yield every.view(torch.uint8)[:, : data.numel()].view(own.dtype)

    def _sum_of(self, product: Product) -> _PeerSum | None:
        """None: it is made as elsewhere."""
        if isinstance(product, Unmade) or self._is_alone or product.dtype not in HALVES:
            return None
        self._check_open()
        return _PeerSum(product, self._inboxes)

    def _side_by_side(self, words: torch.Tensor) -> torch.Tensor:
        self._check_open()
        from ssd_lab.kernels.triton_ops.peer_sums import gather_over_ranks

        return gather_over_ranks(words, self._inboxes)

    def _check_open(self) -> None:
        if self._is_closed.is_set():
            raise RankError("the ranks' memory is closed")

    def _give_up(self) -> None:
        """Have kernels end that wait for a rank."""
        self._seen[0] = 1


class _PeerSum(Unmade):
    """A sum over ranks that is made when it is read."""

    def __init__(self, product: torch.Tensor | Partials, inboxes: Inboxes) -> None:
        self._product, self._inboxes = product, inboxes

    def total(self) -> torch.Tensor:
        """See `Unmade`."""
        from ssd_lab.kernels.triton_ops.peer_sums import sum_over_ranks

        return sum_over_ranks(self._product, self._inboxes)

    def add_rms_norm(self, hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Unmade`. How it is made depends on the size of a row alone."""
        from ssd_lab.kernels.triton_ops.norm import add_rms_norm
        from ssd_lab.kernels.triton_ops.peer_norm import WIDEST, add_rms_norm_over_ranks

        if hidden.shape[1] > WIDEST:
            return add_rms_norm(hidden, self.total(), weight, eps, pdl=self._inboxes.pdl)
        return add_rms_norm_over_ranks(hidden, self._product, weight, eps, self._inboxes)


def _inbox(device: torch.device, size: int) -> DeviceMemory:
    """Raises RankError where there can be none."""
    if importlib.util.find_spec("triton") is None:
        raise RankError("triton is not installed")
    from ssd_lab.kernels.triton_ops.peer_sums import inbox_bytes

    return DeviceMemory.made(device, inbox_bytes(size))


def _first(own: str, others: list[str]) -> str:
    """Of what was said, what is not empty."""
    return next((said for said in (own, *others) if said), "")


def _watch(group: weakref.ref[PeerGroup], is_closed: threading.Event) -> None:
    """Until the group is closed, or nobody has it any more, or a rank is gone."""
    while not is_closed.wait(ALIVE_S):
        watched = group()
        if watched is None:
            return
        if not watched._are_alive():
            watched._give_up()
            return
        del watched
