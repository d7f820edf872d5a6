"""Out of memory, wherever it happens, becomes an error that says of what and what to change; finished text survives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.common.out_of_memory import explain_out_of_memory, is_out_of_memory
from ssd_lab.engine.engine import Engine
from ssd_lab.errors import CacheCapacityError, ConfigError, ProposerError
from ssd_lab.execution import graphs
from ssd_lab.models import kv_cache, loader
from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.models.kv_cache import PagedKVCache


def full(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def capture_that_fails_twice() -> None:
    try:
        full()
    finally:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


@pytest.mark.parametrize(
    "fail",
    [
        full,
        lambda: torch.empty(1 << 60, dtype=torch.uint8),  # the CPU's allocator, for real
        capture_that_fails_twice,
        lambda: [].append(memoryview(bytearray(1 << 60))),
    ],
)
def test_a_failed_allocation_is_known_by_its_kind_or_by_its_words(fail: Any) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what is raised is what is being asked
        fail()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory of names"), None])
def test_other_errors_are_left_alone(error: Exception | None) -> None:
    assert not is_out_of_memory(error)
    if error is not None:
        with (
            pytest.raises(type(error), match=str(error)),
            explain_out_of_memory("x", ConfigError, device="cpu", change="y"),
        ):
            raise error


def test_the_explanation_nearest_to_the_allocation_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 10**9, 80 * 10**9))
    with (
        pytest.raises(CacheCapacityError) as caught,
        explain_out_of_memory("running", ConfigError, device="cuda", change="outer"),
        explain_out_of_memory("capturing", CacheCapacityError, device="cuda", change="inner", wanted_bytes=5 * 10**9),
    ):
        full()
    assert str(caught.value) == "out of memory while capturing (5.00 GB); 3.00 of 80.00 GB are free on cuda: inner"


def test_while_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "assemble", full)
    with pytest.raises(ConfigError, match=r"loading the weights of target \(0\.07 GB\) on cpu: take a smaller model"):
        loader.load_model(demo.TARGET, dtype="float32")


def test_while_allocating_kv_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    config = open_checkpoint(demo.TARGET).config
    monkeypatch.setattr(kv_cache.torch, "zeros", full)
    with pytest.raises(CacheCapacityError, match=r"allocating 1,000 KV blocks \(0\.05 GB\).*lower num_blocks"):
        PagedKVCache(config, 1000, 16, torch.bfloat16, "cpu")


def test_while_capturing(monkeypatch: pytest.MonkeyPatch, tiny_pair: Any) -> None:
    class Backend:
        def warm_up(self, function: Any) -> None:
            return function()

        def capture(self, function: Any) -> Any:
            capture_that_fails_twice()

    monkeypatch.setattr("ssd_lab.assembly.build.make_executor", lambda device, **_: graphs.GraphExecutor(Backend()))
    with (
        LLM(tiny_pair.target, None, "autoregressive", dtype="float32", progress=False) as llm,
        pytest.raises(CacheCapacityError, match=r"capturing verify for 1 rows as graph number 1.*eager=True"),
    ):
        llm.generate("hi")


@pytest.mark.parametrize("raised", ["by the engine", "by the draft"])
def test_while_running_what_is_finished_survives(monkeypatch: pytest.MonkeyPatch, tiny_pair: Any, raised: str) -> None:
    """A draft's failure reaches the caller through the engine's guard, which names the proposer."""
    step, ends = Engine.step, []

    def failing(engine: Engine) -> Any:
        if any(sequence.end_s is not None for sequence in ends):
            if raised == "by the engine":
                full()
            try:
                full()
            except torch.OutOfMemoryError as error:
                raise ProposerError("the strategy's proposer raised OutOfMemoryError") from error
        ended = step(engine)
        ends.extend(ended)
        return ended

    monkeypatch.setattr(Engine, "step", failing)
    params = [SamplingParams(max_tokens=3, ignore_eos=True), SamplingParams(max_tokens=30, ignore_eos=True)]
    with (
        LLM(tiny_pair.target, None, "autoregressive", dtype="float32", progress=False) as llm,
        pytest.raises(CacheCapacityError, match=r"running a round.*lower max_batch") as caught,
    ):
        llm.generate(["one", "two"], params)
    first, second = caught.value.outputs
    assert (first.finish_reason, len(first.token_ids)) == ("length", 3)
    assert second.finish_reason == "cancelled" and 0 < len(second.token_ids) < 30
    assert llm.num_free_blocks == llm._engine._blocks.num_usable
