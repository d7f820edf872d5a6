"""Ranks that are killed, and programs that end: clear errors soon, nothing left behind, and a next run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from end_to_end_cases import PROMPTS

from ssd_lab import LLM, SamplingParams
from ssd_lab.errors import ForkedProcessError, RankError
from ssd_lab.models.group import Group
from ssd_lab.ranks.messages import Run
from ssd_lab.ranks.rank_process import RankProcess
from ssd_lab.ranks.team import RankTeam

pytestmark = pytest.mark.grid(full=5)  # each case starts processes of its own

SOON_S = 10.0
PARAMS = SamplingParams(max_tokens=24, ignore_eos=True)
MOMENTS: dict[str, tuple[type, str]] = {  # what the first rank is about to do, or has just done, when another is killed
    "telling": (RankProcess, "tell"),
    "handing out inputs": (Group, "agreed"),
    "in the middle of a forward": (Group, "_pieces"),
    "joining logits": (Group, "joined"),
}
GONE = r"rank \d of the target \(process \d+, cpu\) is gone \(killed by SIGKILL"


def options(tiny_pair: Any, ranks: int = 2) -> dict[str, Any]:
    fields: dict[str, Any] = {"progress": False, "threads": 1, "dtype": "float32", "max_batch": 4}
    return {
        **fields, "target": tiny_pair.target, "draft": tiny_pair.draft, "placement": {"target": ["cpu"] * ranks}
    }  # fmt: skip


def team_of(llm: LLM) -> RankTeam:
    return llm._engine._runner.executor._team  # type: ignore[attr-defined,no-any-return]


def processes_of(llm: LLM) -> list[int]:
    """Of all ranks but this one."""
    return [report.process_id for report in team_of(llm).reports[1:]]


def is_there(process: int) -> bool:
    """Is it running? One that has ended and is waited for by nobody is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def folders(process: int | None = None) -> set[str]:
    """In which ranks of this process, or of another program, meet."""
    memory, owner = Path("/dev/shm"), process or os.getpid()
    return {each.name for each in memory.glob(f"ssd_lab-ranks-{owner}-*")} if memory.is_dir() else set()


def all_gone(processes: list[int]) -> bool:
    end_s = time.monotonic() + SOON_S
    while time.monotonic() < end_s and any(map(is_there, processes)):
        time.sleep(0.05)
    return not any(map(is_there, processes))


def kill_in_call(patch: pytest.MonkeyPatch, moment: str, call: int, *, after: bool, process: int) -> None:
    """Kill the process before or after this call."""
    owner, name = MOMENTS[moment]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(process, signal.SIGKILL)
        result = original(*arguments, **named)
        if calls == call and after:
            os.kill(process, signal.SIGKILL)
        return result

    patch.setattr(owner, name, counted)


def run_and_kill(llm: LLM, patch: pytest.MonkeyPatch, moment: str, call: int, *, after: bool, rank: int) -> None:
    with patch.context() as within:
        kill_in_call(within, moment, call, after=after, process=processes_of(llm)[rank - 1])
        start_s = time.monotonic()
        with pytest.raises(RankError, match=GONE):
            llm.generate(PROMPTS[:3], PARAMS)
        assert time.monotonic() - start_s < SOON_S
    with pytest.raises(RankError, match="make a new LLM"):
        llm.generate(PROMPTS[:1], PARAMS)


@pytest.mark.parametrize("moment", ["in the middle of a forward", pytest.param("telling", marks=pytest.mark.full)])
def test_a_rank_that_is_killed_ends_every_request_soon(
    moment: str, tiny_pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, descriptors = folders(), len(os.listdir("/proc/self/fd"))
    for _ in range(2):  # the next run works as the first did, until its rank is killed
        with LLM(strategy="sync_chain", k=3, **options(tiny_pair)) as llm:
            processes = processes_of(llm)
            run_and_kill(llm, monkeypatch, moment, 9, after=False, rank=1)
        assert all_gone(processes) and folders() == before
        assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.mark.grid(full=8)
@pytest.mark.full
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_rank_may_be_killed_at_any_moment(
    moment: str, rank: int, tiny_pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(f"{moment} {rank}")
    before = folders()
    for after in (False, True):
        with LLM(strategy="async_tree", k=3, f=2, **options(tiny_pair, ranks=4)) as llm:
            processes = processes_of(llm)
            run_and_kill(llm, monkeypatch, moment, draw.randrange(1, 9), after=after, rank=rank)
        assert all_gone(processes) and folders() == before


@pytest.mark.full
def test_every_caller_hears_of_it_and_so_does_who_comes_later(tiny_pair: Any, hold: Any) -> None:
    heard: list[BaseException] = []
    with LLM(strategy="autoregressive", **options(tiny_pair)) as llm:
        long = SamplingParams(max_tokens=400, ignore_eos=True)

        def call(prompt: str) -> None:
            try:
                llm.generate(prompt, long)
            except RankError as error:
                heard.append(error)

        callers = [threading.Thread(target=call, args=(prompt,)) for prompt in PROMPTS[:3]]
        hold()
        for caller in callers:
            caller.start()
        end_s = time.monotonic() + 60
        while llm.status().running + llm.status().waiting < 3:
            assert time.monotonic() < end_s
            time.sleep(0.01)
        os.kill(processes_of(llm)[0], signal.SIGKILL)
        hold.release()
        for caller in callers:
            caller.join(SOON_S)
        with pytest.raises(RankError, match=GONE):
            llm.generate(PROMPTS[0], PARAMS)
    assert len(heard) == 3


@pytest.mark.full
def test_an_error_in_the_middle_of_a_step_leaves_no_rank_behind(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it the ranks are at different places, so the step that follows would compute nonsense."""
    original, calls = Group._pieces, iter(range(100))

    def fails_once(group: Group, own: Any) -> Any:
        if next(calls) == 5:
            raise RuntimeError("planted")
        return original(group, own)

    with LLM(strategy="autoregressive", **options(tiny_pair)) as llm:
        processes = processes_of(llm)
        with monkeypatch.context() as within:
            within.setattr(Group, "_pieces", fails_once)
            with pytest.raises(RuntimeError, match="planted"):
                llm.generate(PROMPTS[0], PARAMS)
        with pytest.raises(RankError, match=r"cut short \(RuntimeError: planted\): make a new LLM"):
            llm.generate(PROMPTS[0], PARAMS)
    assert all_gone(processes)


@pytest.mark.full
@pytest.mark.parametrize("is_over", [False, True])
def test_what_a_rank_raises_reaches_the_caller(tiny_pair: Any, is_over: bool) -> None:
    """Here a rank is told of a number that it does not know. is_over: it has ended before anybody asks for more."""
    with LLM(strategy="autoregressive", **options(tiny_pair)) as llm:
        llm.generate(PROMPTS[0], SamplingParams(max_tokens=2))
        rank = team_of(llm)._processes[0]
        rank.tell(Run(250))
        end_s = time.monotonic() + SOON_S
        while is_over and rank.is_running and time.monotonic() < end_s:
            time.sleep(0.01)
        with pytest.raises(RankError, match=r"rank 1 of the target .* failed: KeyError: 250"):
            llm.generate(PROMPTS[0], PARAMS)


@pytest.mark.full
def test_two_runs_at_once_do_not_meet(tiny_pair: Any) -> None:
    fields = options(tiny_pair)
    with LLM(strategy="autoregressive", **fields) as one, LLM(strategy="sync_chain", k=3, **fields) as other:
        texts: dict[str, list[list[int]]] = {}

        def call(name: str, llm: LLM) -> None:
            texts[name] = [output.token_ids for output in llm.generate(PROMPTS, PARAMS)]

        callers = [threading.Thread(target=call, args=pair) for pair in (("one", one), ("other", other))]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
    assert texts["one"] == texts["other"]


@pytest.mark.full
def test_a_forked_child_is_told_that_the_ranks_are_not_its_own(tiny_pair: Any) -> None:
    with LLM(strategy="autoregressive", **options(tiny_pair)) as llm:
        team = team_of(llm)
        team._owner += 1  # as a child of a fork sees it
        with pytest.raises(ForkedProcessError, match="start method 'spawn'"):
            team._open_group()
        team._owner -= 1
        assert llm.generate("Hello", SamplingParams(max_tokens=1))


PROGRAM = """
import signal, sys, time
import ssd_lab
signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background may ignore it
llm = ssd_lab.LLM({target!r}, strategy="autoregressive", placement="target=cpu,cpu", threads=1, dtype="float32",
                  progress=False)
print(llm._engine._runner.executor._team.reports[1].process_id, flush=True)
{then}
"""
# Ctrl-C ends a run, which returns what there is
FOREVER = 'while not llm.run("Hello", ssd_lab.SamplingParams(max_tokens=200, ignore_eos=True)).interrupted: pass'


@pytest.mark.full
@pytest.mark.parametrize(
    ("then", "number"),
    [
        (FOREVER, signal.SIGTERM),
        (FOREVER, signal.SIGINT),
        (FOREVER, signal.SIGKILL),
        ("time.sleep(60)", signal.SIGKILL),
        ('raise ValueError("of the user")', None),
        ("sys.exit(3)", None),
    ],
)
def test_no_rank_outlives_its_program(then: str, number: int | None, tiny_pair: Any) -> None:
    code = PROGRAM.format(target=tiny_pair.target, then=then)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        process = int(program.stdout.readline())
        if number is not None:
            time.sleep(0.3)
            program.send_signal(number)
        program.wait(SOON_S)
    assert all_gone([process]) and not folders(program.pid)
