"""Ranks that write into each other's memory: here two processes that share some, in Triton's interpreter."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton.language as tl
from kernel_cases import INTERPRETED, within_budget

from ssd_lab.errors import RankError
from ssd_lab.kernels.norm import rms_norm
from ssd_lab.kernels.product import Partials, Unmade
from ssd_lab.kernels.triton_ops import peer_sums
from ssd_lab.models.group import _sum
from ssd_lab.ranks.peer_group import PeerGroup

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="ranks need a GPU each")

CPU = torch.device("cpu")
LIMIT_S = 120.0  # for what takes a second or two: both processes look all the time
INBOX = peer_sums.inbox_bytes(2) // 8  # words
SHAPES = [(1, 7), (5, 150), (3, 33)]


def on_both_ranks(work: Callable[[PeerGroup], list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """What each rank's work comes to."""
    fork = multiprocessing.get_context("fork")
    memory = torch.zeros(2, INBOX, dtype=torch.int64).share_memory_()
    addresses = [inbox.data_ptr() for inbox in memory]

    def rank(number: int, answer: Any) -> None:
        group = PeerGroup(number, addresses, CPU, limit_s=LIMIT_S)
        answer.send([made.numpy() for made in work(group)])
        group.confirm()
        group.close()

    started = []
    for number in range(2):
        here, there = fork.Pipe(duplex=False)
        started.append((here, fork.Process(target=rank, args=(number, there), daemon=True)))
        started[-1][1].start()
        there.close()
    try:
        assert all(here.poll(LIMIT_S) for here, _ in started)
        return [[torch.from_numpy(made) for made in here.recv()] for here, _ in started]
    finally:
        for _, process in started:
            process.join(5)
            process.kill()


def of_rank(rank: int, *shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(rank)).to(dtype)


def sum_of(parts: list[torch.Tensor]) -> torch.Tensor:
    """As the other transports make it."""
    return _sum(torch.stack([part.reshape(-1) for part in parts])).view(parts[0].shape)


def test_ranks_have_the_bits_of_the_other_transports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of several sizes, the larger ones in several turns of every program, while one rank is late; with the
    residual and the norm; columns side by side; the first one's word.
    """
    for name, value in {"PROGRAMS": 2, "SMALL": (64, 4), "LARGE": (64, 4)}.items():
        monkeypatch.setattr(peer_sums, name, value)
    monkeypatch.setattr("ssd_lab.kernels.triton_ops.peer_norm.PROGRAMS", 2)
    pieces = [torch.randn(3, 2, 40, generator=torch.Generator().manual_seed(rank)) for rank in range(2)]
    hidden, weight, said = of_rank(9, 3, 90), of_rank(8, 90), torch.arange(7, dtype=torch.uint8)

    def work(group: PeerGroup) -> list[torch.Tensor]:
        made = [group.total(Partials(pieces[group.rank], torch.float16))]
        time.sleep(0.05 * group.rank)
        made += [group.total(of_rank(group.rank, *shape)) for shape in SHAPES]
        made += [group.joined(of_rank(group.rank, 5, 30, dtype=torch.float32)), group.joined(of_rank(group.rank, 2, 3))]
        made += [group.agreed(said if group.rank == 0 else torch.zeros_like(said)), group.agreed(said[:0])]
        with group.alone():
            made.append(group.total(torch.ones(1, 2).half()))
        for rows in (slice(0, 3), slice(2, 3)):
            delta = group.unmade(of_rank(group.rank, 3, 90)[rows])
            assert isinstance(delta, Unmade)
            made += delta.add_rms_norm(hidden[rows], weight, 1e-5)
        return made

    first, second = on_both_ranks(work)
    assert all(torch.equal(*both) for both in zip(first, second, strict=True))
    *apart, total, normed, one_total, one_normed = first
    expected = [sum_of([Partials(each, torch.float16).total() for each in pieces])]
    expected += [sum_of([of_rank(rank, *shape) for rank in range(2)]) for shape in SHAPES]
    expected += [torch.cat([of_rank(rank, 5, 30, dtype=torch.float32) for rank in range(2)], 1)]
    expected += [
        torch.cat([of_rank(rank, 2, 3) for rank in range(2)], 1),
        said,
        said[:0],
        torch.full((1, 2), 2.0).half(),
    ]
    assert all(torch.equal(*both) for both in zip(apart, expected, strict=True))
    added = hidden + sum_of([of_rank(rank, 3, 90) for rank in range(2)])
    assert torch.equal(total, added) and torch.equal(one_total, total[2:]) and torch.equal(one_normed, normed[2:])
    wide = added.double()
    exact = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    within_budget(normed, exact, rms_norm(added, weight, 1e-5))


@pytest.mark.parametrize("is_told", [False, True])
def test_a_rank_that_does_not_come_ends_the_waiting(is_told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many tries, or before that, once it is seen to be gone; what is gathered then is zeros."""
    monkeypatch.setattr("ssd_lab.ranks.peer_group.ALIVE_S", 0.01)
    monkeypatch.setattr(peer_sums, "LOOK", tl.constexpr(4))
    monkeypatch.setattr(peer_sums, "FAR_LOOK", tl.constexpr(16))
    inboxes = [torch.zeros(INBOX, dtype=torch.int64) for _ in range(2)]
    limit_s = 1000.0 if is_told else 50e-6
    group = PeerGroup(0, [each.data_ptr() for each in inboxes], CPU, limit_s=limit_s, are_alive=lambda: not is_told)
    for _ in range(2):
        group.total(of_rank(0, 1, 8))
    assert torch.equal(group.joined(torch.ones(1, 3)), torch.tensor([[1.0, 1, 1, 0, 0, 0]]))
    with pytest.raises(RankError, match="rank 1 did not do its part: it is gone, or took longer than"):
        group.confirm()
    group.close()
