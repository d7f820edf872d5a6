"""Kernels of a run are compiled while its weights are read, and whatever goes wrong there is no matter of the run's."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssd_lab import demo
from ssd_lab.assembly import compile_ahead
from ssd_lab.assembly.compile_ahead import compiled_ahead, usual_runs
from ssd_lab.assembly.dry_run import GREEDY
from ssd_lab.assembly.memory_reader import HostMemoryReader
from ssd_lab.assembly.planning import MemoryPlanner
from ssd_lab.config import EngineConfig
from ssd_lab.strategies import registry


@pytest.fixture
def planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryPlanner:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    config = EngineConfig(max_batch=16, max_model_len=700)
    strategy, cpu = registry.config("async_tree", {"k": 2, "f": 2}), torch.device("cpu")
    return MemoryPlanner(str(demo.TARGET), str(demo.DRAFT), strategy, config, cpu, HostMemoryReader())


@pytest.mark.full
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("strategy", ["async_tree", "sync_tree"])
def test_what_the_steps_launch_was_compiled_before(strategy: str) -> None:
    """By all that the compiler goes by: types, alignment, numbers that are 1 or multiples of 16, constants."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = [sys.executable, str(Path(__file__).parent / "launches_ahead.py"), strategy]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    launched, missing = [int(word) for word in done.stdout.replace(",", "").replace(":", "").split() if word.isdigit()]
    assert launched >= 40 and missing == 0, done.stdout


def test_one_request_comes_first_then_the_full_batch(planner: MemoryPlanner) -> None:
    first, *_, last = usual_runs(planner)
    assert (first.batch, first.settings, first.device.type) == (1, GREEDY, "meta")
    assert last.batch == 16 and last.longest == 700 + planner.strategy.reserved_positions


def test_a_fault_costs_nothing_but_time(
    planner: MemoryPlanner, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*given: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compile_ahead, "choose_kernels", no_compiler)
    with compiled_ahead(planner) as ahead:
        ahead.wait()
    assert "could not be compiled ahead" in caplog.text and "no compiler" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "compile-ahead"]


def test_nothing_is_left_behind(planner: MemoryPlanner, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, steps = threading.Event(), threading.Event(), []

    def step(*given: object) -> None:
        steps.append(given)
        begun.set()
        go_on.wait(60)

    monkeypatch.setattr(compile_ahead.DryRun, "steps", lambda run, role: [step])
    monkeypatch.setattr(compile_ahead, "compiling_together", lambda pool: compile_ahead.current(planner.device))
    with compiled_ahead(planner) as ahead:
        assert begun.wait(60)
        threading.Timer(0.05, go_on.set).start()
    assert len(steps) == 1, "another step began after the end"
    assert not ahead._thread.is_alive()


def test_kernels_that_nobody_waits_for_are_not_compiled(
    planner: MemoryPlanner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Leaving early, by Ctrl-C or because the weights cannot be read, waits for those under way only."""
    all_asked, go_on, compiled = threading.Event(), threading.Event(), []

    def compile_one() -> None:
        go_on.wait(60)
        compiled.append(None)

    @contextmanager
    def together(pool: Executor) -> Iterator[None]:
        asked = [pool.submit(compile_one) for _ in range(500)]
        all_asked.set()
        yield
        wait(asked)

    monkeypatch.setattr(compile_ahead, "compiling_together", together)
    monkeypatch.setattr(compile_ahead.DryRun, "steps", lambda run, role: [])
    with compiled_ahead(planner) as ahead:
        assert all_asked.wait(60)
        threading.Timer(0.05, go_on.set).start()
    assert not ahead._thread.is_alive() and 0 < len(compiled) < 500
    assert not caplog.records


def test_what_is_in_the_cache_is_not_handed_over_again(
    planner: MemoryPlanner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps: list[object] = []
    monkeypatch.setattr(compile_ahead.DryRun, "steps", lambda run, role: [lambda *given: steps.append(given)])
    monkeypatch.setattr(compile_ahead, "compiling_together", lambda pool: compile_ahead.current(planner.device))

    def begun(planner: MemoryPlanner) -> int:
        steps.clear()
        with compiled_ahead(planner) as ahead:
            ahead.wait()
        return len(steps)

    assert begun(planner) > 0 and begun(planner) == 0
    other = replace(planner, config=planner.config.model_copy(update={"max_batch": 8}))
    assert begun(other) > 0, "another batch launches other kernels"
    shutil.rmtree(tmp_path)
    assert begun(planner) > 0, "the note outlived its cache"
