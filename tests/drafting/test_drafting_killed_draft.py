"""A draft process that is killed at any moment of a round costs a warning: no hang, no other text, nothing left."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end_cases import PROMPTS

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.engine.rounds import Rounds
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.links.slots import Slots
from ssd_lab.models.loader import LoadedModel, load_model

pytestmark = pytest.mark.grid(full=5)  # each case starts processes of its own

OPTIONS: dict[str, Any] = {"progress": False, "threads": 1, "max_batch": 2}
ASYNC: dict[str, Any] = {"strategy": "async_tree", "k": 3, "f": 2, "draft_link": "process"}
PARAMS = SamplingParams(max_tokens=24, ignore_eos=True)

MOMENTS: dict[str, tuple[type, str]] = {  # what the parent is about to do, or has just done, when the child is killed
    "a prompt": (LinkProposer, "prefill"),
    "sending": (ProcessLink, "_send"),
    "waiting for the reply": (ProcessLink, "_receive"),
    "writing the outcome": (Slots, "write_outcome"),
    "reading the reply": (Slots, "read_speculation"),
    "verifying": (Rounds, "verify"),
    "reading the outcome": (Rounds, "collect"),
    "telling the outcome": (LinkProposer, "observe"),
}


@pytest.fixture(scope="module")
def models(tiny_pair: Any) -> tuple[LoadedModel, LoadedModel]:
    torch.set_num_threads(1)
    return load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")


@pytest.fixture(scope="module")
def expected(models: tuple[LoadedModel, LoadedModel]) -> list[list[int]]:
    with LLM(*models, "autoregressive", **OPTIONS) as llm:
        return [output.token_ids for output in llm.generate(PROMPTS[:3], PARAMS)]


def kill_in_call(patch: pytest.MonkeyPatch, moment: str, call: int, *, after: bool, child: int) -> list[bool]:
    """Kill the child before or after this call; the list holds something once that happened."""
    owner, name = MOMENTS[moment]
    original: Callable[..., Any] = getattr(owner, name)
    calls, killed = 0, []

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(child, signal.SIGKILL)
            killed.append(True)
        result = original(*arguments, **named)
        if calls == call and after:
            os.kill(child, signal.SIGKILL)
            killed.append(True)
        return result

    patch.setattr(owner, name, counted)
    return killed


def run_and_kill(models: Any, expected: Any, patch: pytest.MonkeyPatch, moment: str, call: int, *, after: bool) -> None:
    descriptors = sorted(os.listdir("/proc/self/fd"))
    with LLM(*models, **ASYNC, **OPTIONS) as llm:
        child = llm._engine.proposer.link.process_id  # type: ignore[attr-defined]
        killed = kill_in_call(patch, moment, call, after=after, child=child)
        start_s = time.monotonic()
        with pytest.warns(RuntimeWarning, match=r"draft process is gone \(killed by SIGKILL"):
            outputs = llm.generate(PROMPTS[:3], PARAMS)
        assert killed, "the moment never came"
        assert time.monotonic() - start_s < 30
    assert [output.token_ids for output in outputs] == expected
    assert not Path(f"/proc/{child}").exists()
    assert sorted(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.quick("reading the reply-4-True")
@pytest.mark.grid(full=1)
@pytest.mark.parametrize(
    ("moment", "call", "after"),
    [("a prompt", 2, False), ("waiting for the reply", 4, False), ("reading the reply", 4, True)],
)
def test_a_draft_that_is_killed_costs_a_warning(
    models: Any, expected: Any, monkeypatch: Any, moment: str, call: int, after: bool
) -> None:
    run_and_kill(models, expected, monkeypatch, moment, call, after=after)


@pytest.mark.grid(full=8)
@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_draft_that_is_killed_at_any_moment_costs_a_warning(
    models: Any, expected: Any, monkeypatch: Any, moment: str
) -> None:
    chosen = random.Random(moment)
    most = 2 if moment == "a prompt" else 8  # two prompts are read together, and the third after them
    for place in range(8):
        with monkeypatch.context() as patch:
            run_and_kill(models, expected, patch, moment, chosen.randint(1, most), after=place % 2 == 1)
