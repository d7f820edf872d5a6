"""Closing always closes: whatever fails at whichever door, no process, thread, socket or file stays behind."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from worker_rounds import round_of

from ssd_lab import LLM, SamplingParams
from ssd_lab.assembly import build
from ssd_lab.common.cpu_threads import ThreadClaims
from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.drafting.proposer import NoProposer
from ssd_lab.engine.engine import Engine
from ssd_lab.errors import ConfigError, DraftWorkerError
from ssd_lab.links import thread_link
from ssd_lab.links.child_process import ChildProcess
from ssd_lab.links.link import InlineLink
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.links.thread_link import ThreadLink
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.phases.verification import Verification
from ssd_lab.strategies.cascade import CascadeProposer

ASYNC: dict[str, Any] = {"strategy": "async_tree", "k": 2, "f": 1, "progress": False, "threads": 1}
CASCADE: dict[str, Any] = {
    "strategy": "cascade", "first": {"strategy": "async_tree", "k": 2, "f": 1},
    "second": {"strategy": "async_tree", "k": 2}, "progress": False, "threads": 1, "draft_link": "thread",
}  # fmt: skip
PARAMS = SamplingParams(max_tokens=8, ignore_eos=True)
ROUND = round_of(5, 50, None)


@pytest.fixture(scope="module")
def models(tiny_pair: Any) -> tuple[LoadedModel, LoadedModel]:
    torch.set_num_threads(1)
    pair = load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")
    LLM(*pair, **ASYNC).close()  # what a first engine makes for good
    return pair


def children() -> set[int]:
    """This process's children, ended ones that nobody waited for included."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def held() -> tuple[Any, ...]:
    gc.collect()
    threads = [thread.name for thread in threading.enumerate()]
    shared = [name for name in os.listdir("/dev/shm") if str(os.getpid()) in name]  # of others, others take care
    return sorted(children()), sorted(threads), sorted(os.listdir("/proc/self/fd")), sorted(shared)


@pytest.fixture
def nothing_left(models: Any):
    """Fails if the test leaves anything behind; threads of the products are as they were, too."""
    before, threads = held(), torch.get_num_threads()
    yield
    assert held() == before
    assert torch.get_num_threads() == threads


def raising(error: type[BaseException]) -> Callable[..., Any]:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise error("injected")

    return fail


def failing_after(original: Callable[..., Any], error: type[BaseException]) -> Callable[..., Any]:
    def fail(*arguments: Any, **named: Any) -> Any:
        original(*arguments, **named)
        raise error("injected")

    return fail


# --- closing ----------------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(("link", "error"), [("process", RuntimeError), ("thread", KeyboardInterrupt)])
def test_a_draft_is_closed_although_the_requests_cannot_be_ended(
    models: Any, nothing_left: None, monkeypatch: Any, link: str, error: type[BaseException]
) -> None:
    llm = LLM(*models, **ASYNC, draft_link=link)
    llm.generate("Hello", PARAMS)
    with monkeypatch.context() as faulty:
        faulty.setattr(Engine, "cancel_all", raising(error))
        with pytest.raises(error, match="injected"):
            llm.close()


def test_a_draft_is_closed_after_an_error_of_the_device(models: Any, nothing_left: None, monkeypatch: Any) -> None:
    llm = LLM(*models, **ASYNC)
    stream = llm.stream("Hello", SamplingParams(max_tokens=64, ignore_eos=True))
    next(stream)
    with monkeypatch.context() as faulty:
        faulty.setattr(Verification, "wait", raising(RuntimeError))
        faulty.setattr(NoProposer, "forget", raising(RuntimeError))
        faulty.setattr(LinkProposer, "forget", raising(RuntimeError))
        with pytest.raises(RuntimeError, match="injected"):
            llm.close()
    stream.close()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_both_parts_of_a_cascade_are_closed_although_the_first_fails(
    models: Any, nothing_left: None, monkeypatch: Any, error: type[BaseException]
) -> None:
    llm = LLM(*models, **CASCADE)
    llm.generate("Hello", PARAMS)
    first = llm._engine.proposer._parts[0]  # type: ignore[attr-defined]
    monkeypatch.setattr(first, "close", failing_after(first.close, error))
    with pytest.raises(error, match="injected"):
        llm.close()


def test_a_child_is_ended_although_ctrl_c_cuts_the_waiting_short(
    models: Any, nothing_left: None, monkeypatch: Any
) -> None:
    llm = LLM(*models, **ASYNC, draft_link="process")
    process = llm._engine.proposer.link._child._process  # type: ignore[attr-defined]
    original, calls = process.wait, []

    def interrupted(timeout: float | None = None) -> int:
        calls.append(timeout)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return original(timeout)

    monkeypatch.setattr(process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.close()
    assert process.returncode is not None


def test_a_child_that_does_not_end_is_killed(models: Any, nothing_left: None, monkeypatch: Any) -> None:
    import signal

    from ssd_lab.links import child_process

    monkeypatch.setattr(child_process, "END_S", 0.3)
    llm = LLM(*models, **ASYNC, draft_link="process")
    os.kill(llm._engine.proposer.link.process_id, signal.SIGSTOP)  # type: ignore[attr-defined]
    llm.close()


# --- opening ----------------------------------------------------------------------------------------------------------

DOORS = {
    "the engine": (build, "Engine"),
    "its blocks": (build, "BlockManager"),
    "its executor": (build, "make_executor"),
    "its description": (build, "_describe"),
}


@pytest.mark.parametrize(
    ("door", "link"),
    [pytest.param("the engine", "process", marks=pytest.mark.full), *((door, "thread") for door in DOORS)],
)
def test_what_was_begun_is_ended_when_an_engine_cannot_be_made(
    models: Any, nothing_left: None, monkeypatch: Any, door: str, link: str
) -> None:
    others = torch.get_num_threads() + 1
    monkeypatch.setattr(*DOORS[door], raising(RuntimeError))
    with pytest.raises(RuntimeError, match="injected"):
        LLM(*models, **{**ASYNC, "threads": others}, draft_link=link)


def test_the_first_part_of_a_cascade_is_closed_when_the_second_cannot_be_made(
    models: Any, nothing_left: None, monkeypatch: Any
) -> None:
    from ssd_lab.drafting import resources

    original, made = resources.LinkProposer, []

    def second_fails(*arguments: Any, **named: Any) -> Any:
        made.append(original(*arguments, **named))
        if len(made) == 2:
            raise ConfigError("injected")
        return made[-1]

    monkeypatch.setattr(resources, "LinkProposer", second_fails)
    with pytest.raises(ConfigError, match="injected"):
        LLM(*models, **CASCADE)


def test_both_parts_of_a_cascade_are_closed_when_they_do_not_fit(
    models: Any, nothing_left: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(CascadeProposer, "__init__", raising(ConfigError))
    with pytest.raises(ConfigError, match="injected"):
        LLM(*models, **CASCADE)


@pytest.mark.parametrize("error", [KeyboardInterrupt, DraftWorkerError])
def test_a_child_is_ended_when_its_start_is_cut_short(
    models: Any, nothing_left: None, monkeypatch: Any, error: type[BaseException]
) -> None:
    monkeypatch.setattr(ProcessLink, "_receive", raising(error))
    with pytest.raises(error, match="injected"):
        LLM(*models, **ASYNC, draft_link="process")


@pytest.mark.fresh_interpreter
def test_a_child_that_does_not_start_in_time_is_ended(models: Any, nothing_left: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(ChildProcess, "end", failing_after(ChildProcess.end, _Ended))
    with pytest.raises(_Ended):
        LLM(*models, **ASYNC, draft_link="process", timeout_s=0.05)


class _Ended(Exception):
    pass


class _Slow:
    """A worker that is made when it is allowed to be."""

    def handle(self, message: Any) -> Any:
        return message

    def background(self) -> None: ...


def test_a_thread_that_does_not_start_in_time_frees_its_worker_once_it_is_made(nothing_left: None) -> None:
    go_on, made = threading.Event(), []

    def make_worker() -> _Slow:
        go_on.wait(30)
        worker = _Slow()
        made.append(weakref.ref(worker))
        return worker

    with pytest.raises(DraftWorkerError, match=r"did not answer within 0\.05 s"):
        ThreadLink(make_worker, threads=None, start_timeout_s=0.05)
    go_on.set()
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s and any(t.name == "ssd_lab-draft" for t in threading.enumerate()):
        time.sleep(0.01)
    gc.collect()
    assert made[0]() is None


def test_a_thread_that_is_busy_is_named_and_ends_when_it_is_done(nothing_left: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(thread_link, "END_S", 0.05)
    go_on = threading.Event()

    class Busy(_Slow):
        def background(self) -> None:
            go_on.wait(30)

    link = ThreadLink(Busy, threads=None, start_timeout_s=30)
    link.ask(ROUND).answer(30)
    with pytest.warns(RuntimeWarning, match="still busy"):
        link.close()
    go_on.set()
    link._thread.join(30)
    assert not link._thread.is_alive()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_an_inline_draft_that_answers_too_late_ends_as_one_elsewhere_would() -> None:
    class Late(_Slow):
        def handle(self, message: Any) -> Any:
            time.sleep(0.02)
            return message

    link = InlineLink(Late())
    assert link.ask(ROUND).answer(30) is ROUND
    with pytest.raises(DraftWorkerError, match=r"took \d+\.\d+ s to answer, and its limit is 0\.01 s"):
        link.ask(ROUND).answer(0.01)


def test_a_child_that_takes_nothing_in_ends_at_the_limit(models: Any, nothing_left: None, monkeypatch: Any) -> None:
    import signal

    from ssd_lab.links import child_process
    from ssd_lab.links.messages import PrefillMessage
    from ssd_lab.rounds.prompt_lines import PromptPart

    monkeypatch.setattr(child_process, "END_S", 0.3)
    llm = LLM(*models, **ASYNC, draft_link="process")
    link = llm._engine.proposer.link  # type: ignore[attr-defined]
    os.kill(link.process_id, signal.SIGSTOP)
    link._channel._send_timeout_s = link._start_timeout_s = 0.2
    with pytest.raises(DraftWorkerError, match=r"took in no message for 0\.2 s"):
        link.post(PrefillMessage([PromptPart(list(range(2_000_000)), 0, [1])]))
    llm.close()


# --- CPU threads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_in_whatever_order_engines_are_closed_the_number_of_threads_is_what_it_was(
    models: Any, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    claims = ThreadClaims()  # other tests' engines may be open, and would have their say
    monkeypatch.setattr("ssd_lab.llm.CLAIMS", claims)
    monkeypatch.setattr("ssd_lab.assembly.build.CLAIMS", claims)
    torch.set_num_threads(3)
    try:
        opened = [LLM(*models, **{**ASYNC, "threads": count}, draft_link="inline") for count in (1, 2)]
        assert torch.get_num_threads() == 2
        opened[order[0]].close()
        assert torch.get_num_threads() == [2, 1][order[0]]  # what the one that is left asked for
        opened[order[0]].close()
        opened[order[1]].close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_a_claim_that_is_given_up_twice_takes_nobody_elses() -> None:
    torch.set_num_threads(1)
    claims = ThreadClaims()
    first = claims.claim(2)
    first()
    second = claims.claim(2)
    first()
    assert torch.get_num_threads() == 2
    second()
    assert torch.get_num_threads() == 1
