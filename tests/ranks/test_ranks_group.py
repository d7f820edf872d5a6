"""What ranks put together: sums in their order, columns side by side, the first one's word."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch
from ranks_in_threads import on_every_rank

from ssd_lab.errors import RankError
from ssd_lab.models.group import Group
from ssd_lab.ranks import shared_memory
from ssd_lab.ranks.meeting import Meeting
from ssd_lab.ranks.shared_memory import SharedMemoryGroup


def of_rank(rank: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(rank)).to(dtype)


@pytest.mark.parametrize("transport", ["memory", "gloo"])
@pytest.mark.parametrize("size", [2, 4])
def test_all_ranks_have_the_same_sum_and_it_is_made_in_their_order(size: int, transport: str) -> None:
    found = on_every_rank(size, lambda group: group.total(of_rank(group.rank, 5, 33)), transport=transport)
    expected = of_rank(0, 5, 33)
    for rank in range(1, size):
        expected = expected + of_rank(rank, 5, 33)
    assert all(torch.equal(total, expected) for total in found)


def test_a_sum_of_small_numbers_is_rounded_once() -> None:
    """In bfloat16 1 + 1/256 is 1; three such parts are 1 + 3/256 all the same."""
    parts = [1.0, 1 / 256, 1 / 256, 1 / 256]
    found = on_every_rank(4, lambda group: group.total(torch.full((1, 2), parts[group.rank], dtype=torch.bfloat16)))
    assert all(total.dtype == torch.bfloat16 and torch.equal(total, found[0]) for total in found)
    assert found[0][0, 0].item() == torch.tensor(1 + 3 / 256).to(torch.bfloat16).item() > 1


def test_a_rows_sum_does_not_depend_on_the_rows_beside_it() -> None:
    together = on_every_rank(2, lambda group: group.total(of_rank(group.rank, 16, 24)))[0]
    alone = on_every_rank(2, lambda group: torch.cat([group.total(row[None]) for row in of_rank(group.rank, 16, 24)]))
    assert torch.equal(together, alone[0])


@pytest.mark.parametrize("rows", [1, 3, 300])
def test_columns_stand_side_by_side_however_many_pieces_they_travel_in(rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared_memory, "PIECE", 4096)
    found = on_every_rank(3, lambda group: group.joined(of_rank(group.rank, rows, 40)))
    assert torch.equal(found[1], torch.cat([of_rank(rank, rows, 40) for rank in range(3)], 1))
    totals = on_every_rank(3, lambda group: group.total(of_rank(group.rank, rows, 40)))
    assert totals[2].shape == (rows, 40) and torch.equal(totals[0], totals[2])


@pytest.mark.parametrize("shape", [(4, 3), (4, 0)])
def test_the_first_ranks_word_holds(shape: tuple[int, int]) -> None:
    said = torch.arange(12).view(4, 3)[:, : shape[1]]
    found = on_every_rank(2, lambda group: group.agreed(said if group.rank == 0 else torch.full(shape, 7)))
    assert all(torch.equal(word, said) for word in found)


def test_a_table_is_shared_by_token_id_and_filled_up() -> None:
    table = torch.arange(10.0).view(5, 2)
    parts = on_every_rank(2, lambda group: group.rows_of(table))
    assert torch.equal(torch.cat(parts), torch.cat([table, torch.zeros(1, 2)]))


def test_alone_a_rank_waits_for_nobody() -> None:
    def by_itself(group: Group) -> torch.Tensor:
        with group.alone():
            return group.total(torch.ones(2, 2)) if group.rank == 0 else torch.zeros(0)

    assert torch.equal(on_every_rank(2, by_itself)[0], torch.full((2, 2), 2.0))


def test_a_rank_that_leaves_is_noticed_at_once() -> None:
    def leave_or_wait(group: Group) -> str:
        if group.rank == 1:
            group.close()
            return ""
        start_s = time.monotonic()
        with pytest.raises(RankError, match="rank 1 is gone"):
            group.total(torch.zeros(2 * shared_memory.PIECE))  # what it told before it left is not enough
        assert time.monotonic() - start_s < 30  # the limit is 60 s
        return "noticed"

    assert on_every_rank(2, leave_or_wait)[0] == "noticed"


def test_a_rank_that_is_late_is_waited_for_up_to_the_limit() -> None:
    meeting, met = Meeting.called(2, 20.0), threading.Event()
    SharedMemoryGroup.prepare(meeting)

    def other() -> None:
        group = SharedMemoryGroup(1, meeting)
        met.wait(30)
        group.close()

    thread = threading.Thread(target=other)
    thread.start()
    group = SharedMemoryGroup(0, meeting)
    group._limit_s = 0.1
    with pytest.raises(RankError, match=r"rank 1 did not do its part within 0.1 s"):
        group.total(torch.zeros(1, 4))
    met.set()
    thread.join(30)
    group.close()
    meeting.is_over()


def test_who_never_comes_is_noticed_when_it_is_gone_and_nothing_stays() -> None:
    meeting = Meeting.called(2, 30.0)
    SharedMemoryGroup.prepare(meeting)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RankError, match="rank 1 is gone"):
        SharedMemoryGroup(0, meeting, are_alive=lambda: False)
    meeting.is_over()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not os.path.exists(meeting.name)
