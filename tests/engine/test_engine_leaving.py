"""Whoever leaves, and whenever: the next requests are drafted for as in a fresh engine. Rounds are launched ahead."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from leaving_cases import MOMENTS, SMALL, Visit, drafted, generated
from replay_graphs import Backends
from round_cases import EVERY, LEARNING, PROMPTS

from ssd_lab import LLM
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.results import RunResult

FAST = ("sync k=4", "async fast", "tree fixed", "prompt lookup")  # of each kind one; `full` has all
STRATEGIES = [name if name in FAST else pytest.param(name, marks=pytest.mark.full) for name in EVERY]


@pytest.fixture(scope="module")
def models(tiny_pair: Any) -> tuple[LoadedModel, LoadedModel]:
    torch.set_num_threads(1)
    return load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")


@pytest.fixture(scope="module")
def graphs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        Backends.installed(patch)
        yield


def opened(models: Any, strategy: str) -> LLM:
    options = {"progress": False, "threads": 1, "draft_link": "inline", **SMALL}
    return LLM(*models, **EVERY[strategy], **options)


@pytest.fixture(scope="module")
def fresh(models: Any, graphs: None) -> Any:
    """What an engine gives that served nobody before."""

    @cache
    def result(strategy: str) -> RunResult:
        with opened(models, strategy) as llm:
            return generated(llm, PROMPTS)

    return result


def texts(result: RunResult) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


@pytest.mark.quick(
    "prompt lookup-four times after two chunks of a stream",
    full=["async fast-as it comes back", "sync k=4-with another in its place at once"],
)
@pytest.mark.grid(one_of=7, full=29)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_next_requests_are_drafted_for_as_before(models: Any, fresh: Any, strategy: str, moment: str) -> None:
    plain = texts(fresh("autoregressive"))
    with opened(models, strategy) as llm, warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that of a draft that was lost
        visit = Visit(llm, PROMPTS)
        MOMENTS[moment](visit)
        while visit.engine.has_work:
            visit.engine.step()
        greedy = {tuple(prompt): text for prompt, text in zip(PROMPTS[::2], plain[::2], strict=True)}
        for sequence in visit.stayed:  # who went on beside it
            assert sequence.output_ids == greedy.get(tuple(sequence.prompt_ids), sequence.output_ids)
            assert sequence.finish_reason == "length"
        assert llm.num_free_blocks == visit.engine._blocks.num_usable
        result = generated(llm, PROMPTS)
        assert llm.num_free_blocks == visit.engine._blocks.num_usable
    assert "degraded" not in result.trace.meta
    assert texts(result)[::2] == plain[::2]
    if strategy in LEARNING:
        assert result.metrics.tokens_per_round > 1.2
    else:
        assert drafted(result) == drafted(fresh(strategy))
        assert result.metrics.tokens_per_round == fresh(strategy).metrics.tokens_per_round


@pytest.mark.quick("prompt lookup", full=["async fast"])
@pytest.mark.grid(full=4)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_kept_of_requests_that_have_ended(models: Any, graphs: None, strategy: str) -> None:
    """Callers keep their sequences; what a strategy remembered of them must go, and tensors must not grow in number."""
    with opened(models, strategy) as llm:
        llm._engine._next_id = first = 1_000_000  # told from all other numbers
        tensors, sequences = [], []
        for _ in range(3):
            visit = Visit(llm, PROMPTS)
            for moment in ("while it is put off", "as the first row of a round in the air"):
                MOMENTS[moment](visit)
                while visit.engine.has_work:
                    visit.engine.step()
            sequences += visit.stayed
            llm._engine.take_trace()
            tensors.append(live_tensors())
        assert not any(sequence.memory for sequence in sequences)
        assert tensors[2] <= tensors[1] or strategy in LEARNING  # times may lead to another graph
        last_batch = range(llm._engine._next_id - SMALL["max_batch"], llm._engine._next_id)
        assert {own for own in kept_ids(llm._engine.proposer) if own >= first} <= set(last_batch)
        reference = weakref.ref(sequences.pop(0))
        gc.collect()
        assert reference() is None


def live_tensors() -> int:
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())


def kept_ids(thing: Any, met: set[int] | None = None) -> Iterator[int]:
    """Every number that is a key in a dictionary within reach."""
    met = set() if met is None else met
    if id(thing) in met:
        return
    met.add(id(thing))
    inner: list[Any] = []
    if isinstance(thing, dict):
        yield from (key for key in thing if isinstance(key, int))
        inner = list(thing.values())
    elif isinstance(thing, list | tuple | set):
        inner = list(thing)
    elif type(thing).__module__.startswith("ssd_lab.") and hasattr(thing, "__dict__"):
        inner = list(vars(thing).values())
    for own in inner:
        yield from kept_ids(own, met)
