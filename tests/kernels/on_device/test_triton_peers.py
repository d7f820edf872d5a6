"""Ranks that write into each other's memory: here forked processes that share some, in Triton's interpreter."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_cases import INTERPRETED, within_budget

from ssd_lab.errors import RankError
from ssd_lab.kernels.norm import rms_norm
from ssd_lab.kernels.product import Partials, Unmade
from ssd_lab.kernels.triton_ops import peer_sums
from ssd_lab.models.group import _sum
from ssd_lab.ranks.peer_group import PeerGroup

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="needs as many GPUs as ranks: tests/gpu has that")

CPU = torch.device("cpu")
LIMIT_S = 60.0


def on_every_rank(size: int, work: Callable[[PeerGroup], Any], *, limit_s: float = LIMIT_S) -> list[Any]:
    """What each rank's work comes to; tensors, numbers, or the text of a RankError."""
    fork = multiprocessing.get_context("fork")
    memory = torch.zeros(size, peer_sums.inbox_bytes(size) // 8, dtype=torch.int64).share_memory_()
    addresses = [inbox.data_ptr() for inbox in memory]

    def rank(number: int, answer: Any) -> None:
        group = PeerGroup(number, addresses, CPU, limit_s=limit_s)
        try:
            found = work(group)
            answer.send(found.view(torch.uint8).numpy().tobytes() if isinstance(found, torch.Tensor) else found)
        except RankError as error:
            answer.send(str(error))
        finally:
            group.close()

    answers = []
    processes = []
    for number in range(size):
        here, there = fork.Pipe(duplex=False)
        processes.append(fork.Process(target=rank, args=(number, there), daemon=True))
        processes[-1].start()
        there.close()
        answers.append(here)
    try:
        assert all(answer.poll(LIMIT_S) for answer in answers)
        return [answer.recv() for answer in answers]
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def of_rank(rank: int, *shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(rank)).to(dtype)


def sum_of(parts: list[torch.Tensor]) -> torch.Tensor:
    """As the other transports make it."""
    return _sum(torch.stack([part.reshape(-1) for part in parts])).view(parts[0].shape)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def test_sums_have_the_bits_of_the_other_transports_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, so that both halves of the inboxes are used again and again while now one rank is late, now
    another; the largest in several turns of every program. A product in pieces is rounded before it travels.
    """
    monkeypatch.setattr(peer_sums, "PROGRAMS", 2)
    monkeypatch.setattr(peer_sums, "SMALL", (64, 4))
    shapes = [(1, 1), (2, 512), (3, 33), (1, 2049), (5, 1500), (1, 7)]
    pieces = [torch.randn(3, 2, 40, generator=torch.Generator().manual_seed(rank)) for rank in range(3)]
    whole = [torch.arange(9.0).bfloat16().view(1, 9) * (rank + 1) for rank in range(3)]

    def work(group: PeerGroup) -> torch.Tensor:
        totals = [group.total(Partials(pieces[group.rank], torch.float16)), group.total(whole[group.rank]).half()]
        for turn, shape in enumerate(shapes):
            if turn % 3 == group.rank:
                time.sleep(0.02)
            totals.append(group.total(of_rank(group.rank, *shape)))
        return torch.cat([total.view(-1) for total in totals])

    expected = [sum_of([Partials(each, torch.float16).total() for each in pieces]), sum(whole).half()]
    expected += [sum_of([of_rank(rank, *shape) for rank in range(3)]) for shape in shapes]
    assert set(on_every_rank(3, work)) == {raw(torch.cat([total.view(-1) for total in expected]))}


def test_a_sum_with_residual_and_norm_is_that_of_both_and_a_row_does_not_see_the_others() -> None:
    hidden, weight = of_rank(9, 5, 200), of_rank(8, 200)

    def work(group: PeerGroup) -> torch.Tensor:
        own, made = of_rank(group.rank, 5, 200), []
        for rows in (slice(0, 5), slice(3, 4)):
            delta = group.unmade(own[rows])
            assert isinstance(delta, Unmade)
            made += list(delta.add_rms_norm(hidden[rows], weight, 1e-5))
        assert torch.equal(made[0][3:4], made[2]) and torch.equal(made[1][3:4], made[3])
        return torch.stack(made[:2])

    first, second = on_every_rank(2, work)
    assert first == second
    total, normed = torch.frombuffer(bytearray(first), dtype=torch.float16).view(2, 5, 200)
    expected = hidden + sum_of([of_rank(rank, 5, 200) for rank in range(2)])
    assert torch.equal(total, expected)
    wide = expected.double()
    within_budget(
        normed, wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight, rms_norm(expected, weight, 1e-5)
    )


def test_columns_stand_side_by_side_and_the_first_ranks_word_holds() -> None:
    said = torch.arange(7, dtype=torch.uint8)

    def work(group: PeerGroup) -> torch.Tensor:
        joined = group.joined(of_rank(group.rank, 5, 30, dtype=torch.float32))
        odd = group.joined(of_rank(group.rank, 2, 3))
        word = group.agreed(said if group.rank == 0 else torch.zeros_like(said))
        wide = group.total(of_rank(group.rank, 2, 3, dtype=torch.float32))
        assert group.agreed(said[:0]).shape == (0,)
        with group.alone():
            assert torch.equal(group.total(torch.ones(1, 2).half()), torch.full((1, 2), 2.0).half())
        return torch.cat([each.reshape(-1).view(torch.uint8) for each in (joined, odd, word, wide)])

    parts = (
        torch.cat([of_rank(rank, 5, 30, dtype=torch.float32) for rank in range(2)], 1),
        torch.cat([of_rank(rank, 2, 3) for rank in range(2)], 1),
        said,
        sum_of([of_rank(rank, 2, 3, dtype=torch.float32) for rank in range(2)]),
    )
    expected = torch.cat([each.reshape(-1).view(torch.uint8) for each in parts])
    assert set(on_every_rank(2, work)) == {raw(expected)}


@pytest.mark.parametrize("is_told", [False, True])
def test_a_rank_that_does_not_come_ends_the_waiting(is_told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many tries, or, long before that, once it is seen to be gone."""
    monkeypatch.setattr("ssd_lab.ranks.peer_group.ALIVE_S", 0.05)

    def work(group: PeerGroup) -> float:
        if group.rank == 1:
            return 0.0
        group._are_alive = lambda: not is_told
        for _ in range(3):
            group.total(of_rank(0, 1, 8))
        assert torch.equal(group.agreed(torch.ones(3)), torch.ones(3))
        group.confirm()
        return 1.0

    (said, _) = on_every_rank(2, work, limit_s=30.0 if is_told else 600e-6)
    assert "rank 1 did not do its part: it is gone, or took longer than" in said
