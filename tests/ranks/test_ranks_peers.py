"""Before GPUs share memory: words and files between ranks, and what happens where that memory is not to be had."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from ssd_lab.errors import RankError
from ssd_lab.models.group import Group
from ssd_lab.ranks import joining, peer_group
from ssd_lab.ranks.distributed import DistributedGroup
from ssd_lab.ranks.meeting import Meeting
from ssd_lab.ranks.passing import Passing
from ssd_lab.ranks.peer_group import PeerGroup

GPU = torch.device("cuda", 0)


def alive() -> bool:
    return True


def each_rank(size: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))


def test_words_and_files_reach_all_others_and_nothing_stays(tmp_path: Path) -> None:
    meeting, descriptors = Meeting.called(3, 20.0), len(os.listdir("/proc/self/fd"))

    def work(rank: int) -> tuple[list[str], list[str], list[bytes]]:
        passing = Passing(rank, meeting, alive)
        own = tmp_path / str(rank)
        own.write_text(f"of {rank}", encoding="utf-8")
        with own.open("rb") as file:
            heard = passing.round(f"I am {rank}", file.fileno())
        later = passing.round("x" * 9000 if rank == 1 else "")
        read = [os.pread(passing.files[other], 9, 0) for other in sorted(passing.files)]
        passing.close()
        return heard, later, read

    first, second, _ = each_rank(3, work)
    meeting.is_over()
    assert first == (["I am 1", "I am 2"], ["x" * 500, ""], [b"of 1", b"of 2"])
    assert second == (["I am 0", "I am 2"], ["", ""], [b"of 0", b"of 2"])
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_who_does_not_come_is_noticed() -> None:
    for limit_s, are_alive, said in ((30.0, lambda: False, "rank 1 is gone"), (0.1, alive, "did not start within 0.1")):
        meeting = Meeting.called(2, limit_s)
        with pytest.raises(RankError, match=said):
            Passing(0, meeting, are_alive)
        meeting.is_over()


class Memory:
    """As `DeviceMemory`, of nothing. fails: on which rank, and when."""

    open, fails = 0, ("", 0)
    num_bytes = address = 64

    def __init__(self, rank: int) -> None:
        if self.fails == ("made", rank):
            raise RankError("there is none")
        Memory.open += 1

    def file(self) -> int:
        return os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        Memory.open -= 1


@pytest.mark.parametrize("fails", [("made", 1), ("mapped", 0)])
def test_without_such_memory_on_any_rank_all_take_nccl_and_the_first_says_why(
    fails: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting, descriptors = Meeting.called(2, 20.0), len(os.listdir("/proc/self/fd"))
    instead: list[int] = []

    def mapped(device: torch.device, descriptor: int, num_bytes: int) -> Memory:
        if fails == ("mapped", device.index):
            raise RankError("it is too far")
        return Memory(-1)

    def over_nccl(rank: int, meeting: Meeting, device: torch.device) -> Group:
        instead.append(rank)
        return DistributedGroup(rank, 2, None)

    monkeypatch.setattr(Memory, "fails", fails)
    monkeypatch.setattr(peer_group, "_inbox", lambda device, size: Memory(device.index))
    monkeypatch.setattr(peer_group.DeviceMemory, "mapped", mapped)
    monkeypatch.setattr(DistributedGroup, "over_nccl", over_nccl)
    why = r"go through NCCL, slower: " + (
        "there is none" if fails[0] == "made" else r"cuda:0 cannot .* \(it is too far"
    )
    with pytest.warns(RuntimeWarning, match=why) as said:
        each_rank(2, lambda rank: joining.join(rank, meeting, torch.device("cuda", rank), alive))
    assert len(said) == 1 and sorted(instead) == [0, 1] and Memory.open == 0
    meeting.is_over()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_without_a_driver_the_reason_is_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "synchronize", lambda device: None)
        with pytest.raises(RankError, match=r"there is no CUDA driver|of the CUDA driver"):
            peer_group._inbox(GPU, 2)


def test_a_lost_rank_is_told_once_results_are_there() -> None:
    pytest.importorskip("triton")
    group = PeerGroup(0, [0, 0], torch.device("cpu"), limit_s=1.0)
    group.confirm()
    group._state[1] = 2
    with pytest.raises(RankError, match=r"rank 1 did not do its part: it is gone, or took longer than 1 s"):
        group.confirm()
    group.close()
    with pytest.raises(RankError, match="closed"):
        group.agreed(torch.zeros(1))
