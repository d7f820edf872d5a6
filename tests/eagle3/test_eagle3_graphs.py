"""The head's phases as graphs: what reaches a replay is in its input buffers, and the text is the eager one."""

from __future__ import annotations

from typing import Any

import pytest
from eagle3_cases import MODES, PROMPTS, eagle, params
from replay_graphs import Backends

from ssd_lab.results import RunResult


def run(counting: Any, mode: str, temperature: float, **fields: Any) -> RunResult:
    with eagle(counting.target, counting.part, mode, max_batch=3, draft_link="inline", **fields) as llm:
        result = llm.run(PROMPTS, params(temperature, top_p=0.9))
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    return result


@pytest.mark.quick("async fast-0.8")
@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("mode", MODES)
def test_graphs_give_the_eager_text(
    counting: Any, monkeypatch: pytest.MonkeyPatch, mode: str, temperature: float
) -> None:
    plain = run(counting, mode, temperature)
    own = Backends.installed(monkeypatch, recapture_every=17)
    graphed = run(counting, mode, temperature)
    assert [o.token_ids for o in graphed.outputs] == [o.token_ids for o in plain.outputs]
    assert graphed.metrics.tokens_per_round == plain.metrics.tokens_per_round
    assert graphed.metrics.cache_hit_rate == plain.metrics.cache_hit_rate
    if temperature == 0:
        counting.twin(counting.part).check(graphed, temperature)
    captured = [backend.captured for _, backend in own.made]
    assert len(captured) == 2 and min(captured) > 0  # the target's executor and the head's
    assert all(backend.replayed > backend.captured for _, backend in own.made)


def test_a_round_of_the_same_shape_captures_nothing(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Backends.installed(monkeypatch)
    with eagle(counting.target, counting.whole, "async jit") as llm:
        llm.run([PROMPTS[0]], params()[:1])
        captured = [backend.captured for _, backend in own.made]
        llm.run([PROMPTS[1]], params()[:1])
        assert [backend.captured for _, backend in own.made] == captured == [2, 1]  # chain and tree; verify


@pytest.mark.full
@pytest.mark.parametrize("mode", MODES)
def test_after_a_warm_up_nothing_is_captured_and_the_text_is_the_same(
    counting: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    own = Backends.installed(monkeypatch)
    plain = run(counting, mode, 0.8)
    with eagle(counting.target, counting.part, mode, max_batch=3, draft_link="inline") as llm:
        llm.warm_up(PROMPTS, params(0.8, top_p=0.9))
        captured = sum(backend.captured for _, backend in own.made)
        result = llm.run(PROMPTS, params(0.8, top_p=0.9))
    assert sum(backend.captured for _, backend in own.made) == captured
    assert [o.token_ids for o in result.outputs] == [o.token_ids for o in plain.outputs]
    assert result.metrics.num_untimed_rounds == 0
