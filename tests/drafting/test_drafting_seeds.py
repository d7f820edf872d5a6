"""One seed, one text: alone, beside others, and where blocks run short and requests are put off for a while."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from replay_graphs import Backends
from round_cases import MEMORIES, PROMPTS, REPEATING

from ssd_lab import LLM, SamplingParams
from ssd_lab.engine.scheduler import Scheduler
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.results import RunResult
from ssd_lab.rounds.sequence import Sequence

pytestmark = pytest.mark.grid(full=5)  # each case starts processes of its own

PARAMS = [SamplingParams(max_tokens=40, temperature=1.0, seed=100 + i, ignore_eos=True) for i in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def models(tiny_pair: Any) -> tuple[LoadedModel, LoadedModel]:
    torch.set_num_threads(1)
    return load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")


@pytest.fixture
def preempted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of each text that was put off."""
    lengths: list[int] = []
    plain = Scheduler._preempt

    def noting(scheduler: Scheduler, sequence: Sequence) -> None:
        lengths.append(len(sequence.output_ids))
        plain(scheduler, sequence)

    monkeypatch.setattr(Scheduler, "_preempt", noting)
    return lengths


@pytest.fixture(scope="module")
def plainly(models: Any) -> Any:
    """What a strategy gives with this much memory, in the engine's own thread and eagerly; made once."""

    @cache
    def result(strategy: str, memory: str) -> RunResult:
        return generated(models, REPEATING[strategy], memory)

    return result


def generated(models: Any, fields: dict[str, Any], memory: str, **engine: Any) -> RunResult:
    options = {"max_model_len": 64, "progress": False, "threads": 1, "draft_link": "inline"}
    with LLM(*models, **fields, **{**options, **MEMORIES[memory], **engine}) as llm:
        result = llm.run(PROMPTS, PARAMS)
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    return result


def ids(result: RunResult) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


@pytest.mark.full
@pytest.mark.parametrize("strategy", REPEATING)
def test_a_seeds_text_is_the_same_whatever_memory_does(models: Any, preempted: list[int], strategy: str) -> None:
    texts = {memory: ids(generated(models, REPEATING[strategy], memory)) for memory in MEMORIES}
    assert max(preempted) > 0  # in the middle of a text, too
    assert all(text == texts["alone"] for text in texts.values())


@pytest.mark.quick("ngram")
@pytest.mark.grid(full=1)
@pytest.mark.parametrize("source", ["stale", "ngram", "random"])
def test_whoever_comes_back_is_drafted_for_as_if_it_had_stayed(models: Any, preempted: list[int], source: str) -> None:
    """Round by round: what is drafted, by which path, on what prepared, whether it hits."""
    fields = {**REPEATING["async fast"], "fallback": {"kind": "fast", "source": source}}
    roomy, tight = (drafted(generated(models, fields, memory)) for memory in ("roomy", "tight"))
    assert max(preempted) > 0
    assert tight == roomy


def drafted(result: RunResult) -> list[tuple[Any, ...]]:
    rows = [row for record in result.trace.rounds for row in record.sequences]
    return [
        (row.request_id, row.position, row.origin, row.cache_hit, row.draft_tokens)
        for row in sorted(rows, key=lambda row: (row.request_id, row.position))
    ]


@pytest.mark.full
@pytest.mark.grid(full=1, most=2)
@pytest.mark.parametrize("link", ["thread", "process"])
def test_a_worker_elsewhere_keeps_what_it_prepared_too(
    models: Any, plainly: Any, preempted: list[int], link: str
) -> None:
    texts = ids(generated(models, REPEATING["async fast"], "tight", draft_link=link))
    assert max(preempted) > 0 and texts == ids(plainly("async fast", "alone"))


@pytest.mark.full
def test_graphs_change_nothing(
    models: Any, plainly: Any, preempted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = ids(plainly("async fast", "alone"))
    Backends.installed(monkeypatch)
    assert ids(generated(models, REPEATING["async fast"], "tight")) == alone and max(preempted) > 0


@pytest.mark.full
def test_without_what_was_prepared_texts_change(
    models: Any, plainly: Any, preempted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: whoever comes back is drafted for as in a first round."""
    plain = Scheduler._preempt

    def forgetting(scheduler: Scheduler, sequence: Sequence) -> None:
        plain(scheduler, sequence)
        sequence.last_accepted = None

    alone = ids(plainly("async fast", "alone"))
    monkeypatch.setattr(Scheduler, "_preempt", forgetting)
    assert ids(generated(models, REPEATING["async fast"], "tight")) != alone and max(preempted) > 0
