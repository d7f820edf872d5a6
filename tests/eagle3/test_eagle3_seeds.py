"""A head's drafts, and a seed's text, are the same where requests are put off for a while."""

from __future__ import annotations

from typing import Any

import pytest
from eagle3_cases import COMPONENTS, MODES, PROMPTS, TREES, eagle, params

from ssd_lab.engine.scheduler import Scheduler
from ssd_lab.rounds.sequence import Sequence

LEARNING = ("auto", "adaptive", "async dynamic", "sync dynamic")  # by times, or from what others did
REPEATING = [name for name in (*MODES, *TREES, *COMPONENTS) if name not in LEARNING]
FAST = ("async jit", "async fast")  # what was prepared counts for most here; `full` has all
MEMORIES: dict[str, dict[str, Any]] = {
    "alone": {"max_batch": 1, "prefix_reuse": False},
    "roomy": {"max_batch": 6},
    "tight": {"max_batch": 6, "num_blocks": 26, "block_size": 4, "max_model_len": 60},
    "tight, blocks of one": {"max_batch": 6, "num_blocks": 90, "block_size": 1, "max_model_len": 60},
}


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


@pytest.mark.quick(full=["1.0-async fast"])
@pytest.mark.grid(full=3)
@pytest.mark.parametrize(
    "mode", [name if name in FAST else pytest.param(name, marks=pytest.mark.full) for name in REPEATING]
)
@pytest.mark.parametrize("temperature", [0.8, 1.0])
def test_a_seeds_text_is_the_same_whatever_memory_does(
    counting: Any, preempted: list[int], mode: str, temperature: float
) -> None:
    texts = {}
    for memory, fields in MEMORIES.items():
        with eagle(counting.target, counting.part, mode, **fields) as llm:
            result = llm.run(PROMPTS, params(temperature))
            assert llm.num_free_blocks == llm._engine._blocks.num_usable
        texts[memory] = [output.token_ids for output in result.outputs]
        hits = [row.origin for record in result.trace.rounds for row in record.sequences]
        assert ("hit" in hits) == mode.startswith(("async", "C", "n-gram", "random"))
    assert max(preempted) > 0  # in the middle of a text, too
    assert all(text == texts["alone"] for text in texts.values())
