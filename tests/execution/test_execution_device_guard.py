"""A device that is not the first one of its kind: nothing is launched, recorded or captured but where it is current.

On a CPU a guard of our own stands in the place of CUDA's, and all that would go by the current device asks it.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from replay_graphs import Backends, ReplayBackend

import ssd_lab
from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.assembly.build import resolve_device
from ssd_lab.common import device_guard
from ssd_lab.common.device_guard import current
from ssd_lab.drafting import draft_worker
from ssd_lab.execution import host_copy
from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.executor import EagerExecutor
from ssd_lab.execution.graphs import GraphExecutor
from ssd_lab.execution.stopwatch import Stopwatch
from ssd_lab.kernels.linear import Linear
from ssd_lab.kernels.torch_kernels import TorchKernels
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.phases.prefill import HeadPrefillPhase, PrefillPhase
from ssd_lab.rounds.head_runner import HeadRunner
from ssd_lab.rounds.placement import Placement, _Buffer
from ssd_lab.rounds.runner import StepRunner

PROMPTS = [[1, 2, 3, 4], [60, 61, 62], [7, 8, 9, 10, 11, 12, 13]]
KERNELS = ("plan", "add_rms_norm", "rope_and_write", "attention", "gated_silu", "greedy_pick", "sample",
           "accept_greedy", "accept_sampled", "causal_places", "greedy_decision", "recovery_candidates", "fork",
           "find_branch")  # fmt: skip
WATCHED: list[tuple[Any, str]] = [
    *((TorchKernels, name) for name in KERNELS), (Linear, "__call__"),
    (StepRunner, "logits"), (StepRunner, "last_logits"), (PrefillPhase, "run"),
    (HeadRunner, "conditioned"), (HeadRunner, "continued"), (HeadPrefillPhase, "run"),
    (EagerExecutor, "call"), (GraphExecutor, "call"), (ReplayBackend, "warm_up"), (ReplayBackend, "capture"),
    (host_copy.HostCopy, "__init__"), (DeviceTensor, "here"), (_Buffer, "send"), (Placement, "__init__"),
    (Stopwatch, "start"), (Stopwatch, "span"), (PagedKVCache, "__init__"), (draft_worker, "sent"),
]  # fmt: skip
EVERYWHERE = {"attention", "run", "__init__", "send", "call"}  # used by every strategy
FIELDS: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 3},
    "async_tree": {"k": 3, "f": 2},
    "fast": {"strategy": "async_tree", "k": 3, "f": 1, "fallback": "fast"},
    "sync_tree": {},
    "eagle3": {"k": 2},
    "eagle3 async": {"strategy": "eagle3", "mode": "async", "k": 2},
    "cascade": {"first": {"strategy": "prompt_lookup", "k": 3}, "second": "async_tree"},
}


class Guard:
    """Knows which device each thread has made current, and who worked on one without."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._own = threading.local()
        self.inside: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()
        self.threads: set[str] = set()
        monkeypatch.setattr(device_guard, "GUARDS", {"cpu": self._entered})
        for owner, name in WATCHED:
            monkeypatch.setattr(owner, name, self._watched(name, getattr(owner, name)))

    @contextmanager
    def _entered(self, device: torch.device) -> Iterator[None]:
        before = getattr(self._own, "device", None)
        self._own.device = device
        try:
            yield
        finally:
            self._own.device = before

    def _watched(self, name: str, plain: Any) -> Any:
        def asking(*given: Any, **named: Any) -> Any:
            there = getattr(self._own, "device", None) is not None
            (self.inside if there else self.outside)[name] += 1
            self.threads.add(threading.current_thread().name)
            return plain(*given, **named)

        return asking


def everything(target: Any, draft: Any, strategy: str, **fields: Any) -> None:
    """All that a user may do with an LLM."""
    options = {"dtype": "float32", "progress": False, "threads": 1, "max_batch": 2, "strategy": strategy}
    params = SamplingParams(max_tokens=10, ignore_eos=True)
    with LLM(target, draft, **{**options, **FIELDS[strategy], **fields}) as llm:
        llm.run(PROMPTS, [params, params.model_copy(update={"temperature": 1.0}), params])
        stream = llm.stream(PROMPTS[0], params)
        next(stream)
        stream.close()
        llm.run(PROMPTS, params, on_step=lambda *_: False)  # cancels all
        llm.generate(PROMPTS[1], params.model_copy(update={"logprobs": 2, "max_tokens": 3}))
        llm.score(PROMPTS[0])
        llm.take_trace()


@pytest.mark.quick("sync_chain-graphs", "sync_tree-graphs", "fast-eager", full=["cascade-graphs", "eagle3 async-eager"])
@pytest.mark.grid(full=4)
@pytest.mark.parametrize("graphs", ["eager", "graphs"])
@pytest.mark.parametrize("strategy", FIELDS)
def test_whatever_works_on_a_device_came_in_by_a_door(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, strategy: str, graphs: str
) -> None:
    if graphs == "graphs":
        Backends.installed(monkeypatch, recapture_every=7)
    guard = Guard(monkeypatch)
    pair = (str(demo.TARGET), None) if "eagle3" in strategy else (tiny_pair.target, tiny_pair.draft)
    everything(*pair, strategy, draft_link="inline")
    assert not guard.outside
    assert guard.inside.keys() >= EVERYWHERE | ({"capture", "warm_up"} if graphs == "graphs" else set())


@pytest.mark.quick("async_tree")
@pytest.mark.parametrize("strategy", ["async_tree", "eagle3 async"])
def test_a_draft_in_a_thread_of_its_own_makes_its_device_current_there(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    guard = Guard(monkeypatch)
    pair = (str(demo.TARGET), None) if "eagle3" in strategy else (tiny_pair.target, tiny_pair.draft)
    everything(*pair, strategy, draft_link="thread")
    assert not guard.outside and "ssd_lab-draft" in guard.threads


def test_an_engine_may_be_driven_from_any_thread(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(monkeypatch)
    thread = threading.Thread(
        target=everything, args=(tiny_pair.target, tiny_pair.draft, "async_tree"), kwargs={"draft_link": "inline"}
    )
    thread.start()
    thread.join()
    assert not guard.outside and guard.inside["attention"] > 0


@pytest.mark.parametrize("door", ["step", "score"])
def test_a_door_that_is_left_open_is_found(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    """Planted: one of the engine's methods without its guard, on a thread that has none either."""
    from ssd_lab.engine.engine import Engine

    guard = Guard(monkeypatch)
    monkeypatch.setattr("ssd_lab.engine.engine_loop.current", lambda device: nullcontext())
    monkeypatch.setattr(Engine, door, getattr(Engine, door).__wrapped__)
    everything(tiny_pair.target, tiny_pair.draft, "autoregressive")
    assert guard.outside["attention"] > 0


GOES_BY_THE_CURRENT_DEVICE = re.compile(
    r"Event\(\"cuda\"|cuda\.Event\(|cuda\.graph\(|CUDAGraph\(|current_stream\(\)|cuda\.Stream\(\)|_kernel\[|current_device\("
)
KNOWN = {
    "assembly/build.py",  # asks for it, once
    "execution/host_copy.py", "execution/device_tensor.py", "execution/stopwatch.py", "rounds/placement.py",  # watched
    "execution/graphs.py", "execution/debug_graphs.py",  # within an executor's call
    "links/stream_link.py",  # called by proposers, which the engine's doors let in
}  # fmt: skip


WITH_DOORS_OF_THEIR_OWN = {"kernels", "profile", "training", "bench"}


def test_no_other_place_goes_by_the_current_device() -> None:
    """A new one is listed here once a door is before it and the guard above watches it."""
    package = Path(ssd_lab.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in WITH_DOORS_OF_THEIR_OWN
        if GOES_BY_THE_CURRENT_DEVICE.search(path.read_text(encoding="utf-8"))
    }
    assert found == KNOWN


def test_a_cuda_device_is_entered_and_a_cpu_has_nothing_to_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[Any] = []
    monkeypatch.setattr(device_guard, "GUARDS", {"cuda": lambda device: entered.append(device) or _nothing()})
    with current("cpu"):
        assert not entered
    with current("cuda:1"):
        assert entered == [torch.device("cuda:1")]


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:1"])
def test_a_cuda_device_has_its_number_whichever_thread_asks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The caller's current device may be another one than that of the thread which will own the engine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr("ssd_lab.assembly.build.check_cuda_build", lambda device: None)
    assert resolve_device(name) == torch.device("cuda:1")
