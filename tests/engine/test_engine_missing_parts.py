"""A trace that cannot be made costs nobody their outputs, and an id that is no token's never gets into one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ssd_lab import LLM, SamplingParams
from ssd_lab.engine.recorder import Recorder
from ssd_lab.models.text.tokenizer import Tokenizer
from ssd_lab.results import RunResult
from ssd_lab.rounds.recorded_tree import RecordedTree
from ssd_lab.rounds.verified_trees import VerifiedTrees
from ssd_lab.trace import Trace, compute_metrics
from ssd_lab.trace.missing import KEY, MOST_NAMED, MissingParts
from ssd_lab.trace.token_texts import token_ids

PROMPTS = [[1, 2, 3, 4], [60, 61, 62]]
GARBAGE = -3_799_912_185_593_852_988  # as read where another buffer lay
PARAMS = SamplingParams(max_tokens=20, ignore_eos=True)


@contextmanager
def opened(pair: Any, strategy: str = "async_tree", **fields: Any) -> Iterator[LLM]:
    options = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline", "max_batch": 2}
    with LLM(pair.target, pair.draft, strategy, **options, **fields) as llm:
        yield llm


def texts(result: RunResult) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


def with_garbage(records: Any) -> Any:
    def wrong(self: Any, *given: Any) -> Any:
        made = records(self, *given)
        for tree in made.values() if isinstance(made, dict) else [made]:
            tree.tokens[0] = GARBAGE
        return made

    return wrong


def raising(*given: Any, **named: Any) -> Any:
    raise OverflowError("out of range integral type conversion")


@pytest.mark.quick("async_tree-RecordedTree-records-with_garbage", "sync_tree-VerifiedTrees-record-with_garbage")
@pytest.mark.parametrize(
    ("strategy", "owner", "name", "planted"),
    [
        ("async_tree", RecordedTree, "records", with_garbage),
        ("async_tree", RecordedTree, "records", lambda plain: raising),
        ("sync_tree", VerifiedTrees, "record", with_garbage),
    ],
)
def test_a_tree_with_ids_that_are_no_tokens_is_left_out_and_named(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: str, owner: Any, name: str, planted: Any
) -> None:
    with opened(tiny_pair, strategy) as llm:
        right = llm.run(PROMPTS, PARAMS)
        assert KEY not in right.trace.meta
        monkeypatch.setattr(owner, name, planted(getattr(owner, name)))
        with pytest.warns(RuntimeWarning, match="the trace lacks"):
            result = llm.run(PROMPTS, PARAMS)
        vocab = llm.target.config.vocab_size
    assert texts(result) == texts(right)
    assert result.metrics.tokens_per_round == right.metrics.tokens_per_round
    assert len(result.trace.rounds) == len(right.trace.rounds)
    assert all(s.tree is None for r in result.trace.rounds for s in r.sequences)
    assert all(0 <= token < vocab for token in token_ids(result.trace))
    assert any("tree" in reason for reason in result.trace.meta[KEY])
    result.trace.save(tmp_path / "trace.jsonl")
    assert "token_texts" in result.trace.meta and json.dumps(result.trace.meta[KEY])


def test_a_round_whose_own_ids_are_no_tokens_is_left_out(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recovery token of the second request is garbage where it is recorded; the first request's record stays."""
    plain = Recorder.round

    def wrong(self: Recorder, sequences: Any, lengths: Any, proposal: Any, verified: Any, *rest: Any) -> None:
        recovery = [verified.recovery_tokens[0], *[2**40] * (len(sequences) - 1)]
        plain(self, sequences, lengths, proposal, replace(verified, recovery_tokens=recovery), *rest)

    with opened(tiny_pair, "sync_chain", k=3) as llm:
        right = llm.run(PROMPTS, PARAMS)
        monkeypatch.setattr(Recorder, "round", wrong)
        with pytest.warns(RuntimeWarning, match=r"token ids \[1099511627776\] are outside 0"):
            result = llm.run(PROMPTS, PARAMS)
        vocab = llm.target.config.vocab_size
    assert texts(result) == texts(right)
    assert len(result.trace.rounds) == len(right.trace.rounds)
    assert {s.request_id for s in result.trace.rounds[0].sequences} == {result.outputs[0].request_id}
    assert all(0 <= token < vocab for token in token_ids(result.trace))


@pytest.mark.parametrize("method", ["run", "generate"])
def test_texts_of_tokens_that_cannot_be_made_cost_no_output(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with opened(tiny_pair) as llm:
        right = llm.generate(PROMPTS, PARAMS)
        monkeypatch.setattr(Tokenizer, "decode", _decoding_no_single_token(Tokenizer.decode))
        with pytest.warns(RuntimeWarning, match="texts of its tokens: OverflowError"):
            got = getattr(llm, method)(PROMPTS, PARAMS)
    assert [output.text for output in (got.outputs if method == "run" else got)] == [output.text for output in right]


def _decoding_no_single_token(plain: Any) -> Any:
    def decode(self: Tokenizer, ids: Any, **named: Any) -> str:
        return raising() if len(ids) == 1 and not named.get("skip_special_tokens", True) else plain(self, ids, **named)

    return decode


def test_only_the_first_parts_are_named_and_the_rest_counted() -> None:
    missing = MissingParts()
    for round_ in range(MOST_NAMED + 5):
        with missing.part(f"round {round_}"):
            raising()
    with pytest.warns(RuntimeWarning, match=f"lacks {MOST_NAMED + 5} of its parts"):
        meta = missing.noted({"exact": True})
    assert meta["exact"] and len(meta[KEY]) == MOST_NAMED + 1 and meta[KEY][-1] == "and 5 more"
    assert compute_metrics(Trace(meta, [], [])).exact
