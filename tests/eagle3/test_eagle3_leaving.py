"""Whoever leaves an engine that drafts with a head, and whenever: the next requests are drafted for as before."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from eagle3_cases import COMPONENTS, MODES, PROMPTS, TREES, eagle
from leaving_cases import MOMENTS, SMALL, Visit, drafted, generated
from replay_graphs import Backends

from ssd_lab import LLM
from ssd_lab.results import RunResult

LEARNING = ("auto", "adaptive", "async dynamic", "sync dynamic")  # by times, or from what others did
FAST = ("sync", "async jit", "widths")  # of each kind one; `full` has all
KINDS = [name if name in FAST else pytest.param(name, marks=pytest.mark.full) for name in (*MODES, *TREES, *COMPONENTS)]


@pytest.fixture(scope="module", autouse=True)
def graphs() -> Iterator[None]:
    """Rounds are launched ahead."""
    with pytest.MonkeyPatch.context() as patch:
        Backends.installed(patch)
        yield


def opened(counting: Any, kind: str) -> LLM:
    return eagle(counting.target, counting.part, kind, **SMALL)


@pytest.fixture(scope="module")
def fresh(counting: Any) -> Any:
    """What an engine gives that served nobody before."""

    @cache
    def result(kind: str) -> RunResult:
        with opened(counting, kind) as llm:
            return generated(llm, PROMPTS)

    return result


def texts(result: RunResult) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


@pytest.mark.quick("sync-with another in its place at once", full=["async jit-four times after two rounds"])
@pytest.mark.grid(one_of=7, full=29)
@pytest.mark.parametrize("moment", [name for name in MOMENTS if "stream" not in name])  # this target has no text
@pytest.mark.parametrize("kind", KINDS)
def test_the_next_requests_are_drafted_for_as_before(counting: Any, fresh: Any, kind: str, moment: str) -> None:
    with opened(counting, kind) as llm, warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that of a draft that was lost
        visit = Visit(llm, PROMPTS)
        MOMENTS[moment](visit)
        while visit.engine.has_work:
            visit.engine.step()
        assert llm.num_free_blocks == visit.engine._blocks.num_usable
        result = generated(llm, PROMPTS)
        assert llm.num_free_blocks == visit.engine._blocks.num_usable
    assert "degraded" not in result.trace.meta
    assert texts(result)[::2] == texts(fresh(kind))[::2] == texts(fresh("sync"))[::2]  # the greedy ones
    if kind in LEARNING:
        assert result.metrics.tokens_per_round > 1.2
    else:
        assert drafted(result) == drafted(fresh(kind))
        assert result.metrics.tokens_per_round == fresh(kind).metrics.tokens_per_round


def test_features_go_when_their_request_does(counting: Any) -> None:
    """They lie in a copy of the whole batch's, and whoever submitted a request may keep it."""
    with opened(counting, "async fast") as llm:
        visit, held = Visit(llm, PROMPTS), []
        for moment in ("while it is put off", "as the first row of a round in the air", "right after it entered"):
            MOMENTS[moment](visit)
            held += [tensor for s in visit.stayed for tensor in tensors_of(s.memory)]
            while visit.engine.has_work:
                visit.engine.step()
        assert held and not any(sequence.memory for sequence in visit.stayed)


def tensors_of(memory: dict[str, Any]) -> list[torch.Tensor]:
    return [thing.features for thing in memory.values()]
