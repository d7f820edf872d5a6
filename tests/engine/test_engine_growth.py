"""Nothing grows with the length of a run or of a stream but what its trace holds."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from replay_graphs import Backends

from ssd_lab import LLM, SamplingParams
from ssd_lab.engine.preparing import Preparing
from ssd_lab.execution import host_copy
from ssd_lab.execution.host_copy import HostCopy

STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 2},
    "async_tree": {"k": 2, "f": 1},
    "adaptive": {"strategy": "async_tree", "k": 2, "fan_out": {"kind": "adaptive", "budget": 4}},
    "sync_tree": {"tree": {"kind": "fixed", "widths": (2, 1)}},
    "prompt_lookup": {"k": 2},
    "cascade": {"first": {"strategy": "prompt_lookup", "k": 2}, "second": {"strategy": "sync_chain", "k": 2}},
}
SHORT, LONG = 1000, 10_000  # rounds
BLOCKS = 2000  # of Python's allocator: about one a round of the short tests, where a recorded round takes dozens
RESIDENT_BYTES = 12_000_000  # of the whole process: what allocators keep for later is in it
STATM = Path("/proc/self/statm")


class Counted:
    """Rounds of an engine."""

    def __init__(self, llm: LLM) -> None:
        self.rounds = 0
        step = llm._engine.step

        def counting() -> Any:
            took_part = step()
            self.rounds += bool(took_part)
            return took_part

        llm._engine.step = counting  # type: ignore[method-assign]


def build(tiny_pair: Any, strategy: str, **fields: Any) -> LLM:
    options = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline", "max_batch": 4}
    options |= {"num_blocks": 36}  # soon full of prefixes
    return LLM(tiny_pair.target, tiny_pair.draft, **{**options, "strategy": strategy, **STRATEGIES[strategy], **fields})


def params(seed: int) -> SamplingParams:
    return SamplingParams(max_tokens=100, ignore_eos=True, temperature=0.7, seed=seed)


def use_by_streams(llm: LLM, counted: Counted, rounds: int) -> None:
    seed = 0
    while counted.rounds < rounds:
        seed += 1
        for _ in llm.stream([1 + seed % 200, 2, 3], params(seed)):
            pass


def use_by_runs(llm: LLM, counted: Counted, rounds: int) -> None:
    seed = 0
    while counted.rounds < rounds:
        seed += 1
        llm.run([[1 + (seed + i) % 200, 2, 3] for i in range(4)], [params(seed + i) for i in range(4)])


def used() -> tuple[int, int]:
    """Blocks of Python's objects, and bytes of the process (arrays and tensors are in it)."""
    gc.collect()
    resident = int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if STATM.is_file() else 0
    return sys.getallocatedblocks(), resident


def check_memory(tiny_pair: Any, strategy: str, use: Any, short: int, long: int, **fields: Any) -> None:
    """After `long` rounds the process is as large as after `short`."""
    with build(tiny_pair, strategy, **fields) as llm:
        counted = Counted(llm)
        use(llm, counted, short)
        before = used()
        use(llm, counted, long)
        after = used()
    assert after[0] - before[0] < BLOCKS
    assert after[1] - before[1] < RESIDENT_BYTES


@pytest.mark.full
def test_the_rounds_of_streams_take_no_memory(tiny_pair: Any) -> None:
    check_memory(tiny_pair, "adaptive", use_by_streams, 60, 240)


@pytest.mark.full
def test_the_rounds_of_runs_without_records_take_no_memory(tiny_pair: Any) -> None:
    check_memory(tiny_pair, "cascade", use_by_runs, 60, 240, record=False)


@pytest.mark.extended
@pytest.mark.full
@pytest.mark.timeout(900)
def test_ten_thousand_rounds_of_streams_take_the_memory_of_a_thousand(tiny_pair: Any) -> None:
    check_memory(tiny_pair, "autoregressive", use_by_streams, SHORT, LONG)


@pytest.mark.extended
@pytest.mark.full
@pytest.mark.timeout(900)
def test_ten_thousand_rounds_of_runs_without_records_take_the_memory_of_a_thousand(tiny_pair: Any) -> None:
    check_memory(tiny_pair, "prompt_lookup", use_by_runs, SHORT, LONG, record=False)


class Pinned:
    """Counts the bytes that would be pinned: every copy to the host is made as from a device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live = self.most = 0
        monkeypatch.setattr(host_copy, "is_on_host", lambda tensor: False)
        monkeypatch.setattr(host_copy, "pinned", self._new)

    def _new(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        made = torch.empty(shape, dtype=dtype)
        size = made.numel() * made.element_size()
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(made, self._freed, size)
        return made

    def _freed(self, size: int) -> None:
        self.live -= size


@pytest.mark.quick("sync_chain", full=["adaptive"])
@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_memory_is_pinned_for_the_rounds_of_a_trace(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """While rounds run ahead, as many copies are under way after 200 tokens as after 20, and none after the run."""
    Backends.installed(monkeypatch)
    monkeypatch.setattr(Preparing, "pays", lambda *given: True)  # else the clock would decide
    pinned, most = Pinned(monkeypatch), []
    with build(tiny_pair, strategy, record_details=4) as llm:
        for tokens in (20, 20, 200):  # what the run before left is there at the second one's start, too
            pinned.most = 0
            trace = llm.run([[1, 2, 3], [4, 5]], SamplingParams(max_tokens=tokens, ignore_eos=True)).trace
            most.append(pinned.most)
            assert trace.rounds
    del trace
    gc.collect()
    assert most[1] == most[2] > 0
    assert pinned.live == 0


def test_a_copy_is_that_of_its_moment_and_lies_in_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = Pinned(monkeypatch)
    numbers = torch.arange(4)
    copy = HostCopy(numbers, numbers + 1)
    numbers.zero_()
    assert pinned.live == 64
    arrays = copy.arrays()
    gc.collect()
    assert pinned.live == 0
    assert [array.tolist() for array in arrays] == [[0, 1, 2, 3], [1, 2, 3, 4]] == [a.tolist() for a in copy.arrays()]
