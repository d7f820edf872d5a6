"""Who takes part is told when it changes, what became of the rows every round; together they say all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from round_cases import MEMORIES, PROMPTS
from worker_rounds import control_of, round_of

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.batch_control import ControlReader, DraftRound
from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.worker_proposer import WorkerProposer
from ssd_lab.drafting.worker_setup import WorkerSetup
from ssd_lab.errors import DraftWorkerError
from ssd_lab.links.link import InlineLink
from ssd_lab.links.messages import ControlMessage, RoundMessage
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.models.loader import LoadedModel, load_model

ASYNC: dict[str, Any] = {"strategy": "async_tree", "k": 3, "f": 2, "fallback": {"kind": "fast", "source": "ngram"}}
OPTIONS: dict[str, Any] = {"progress": False, "threads": 1, "draft_link": "inline", "max_model_len": 64}
PARAMS = [SamplingParams(max_tokens=30 + i, temperature=i % 2, seed=i, ignore_eos=True) for i in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def models(tiny_pair: Any) -> tuple[LoadedModel, LoadedModel]:
    torch.set_num_threads(1)
    return load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")


class Overheard:
    """What was sent over an inline link, and what the engine knew in each round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Any] = []
        self.known: list[tuple[list[int], list[list[int]], list[Any], list[list[int]]]] = []
        post, ask, message = InlineLink.post, InlineLink.ask, WorkerProposer._message
        monkeypatch.setattr(InlineLink, "post", lambda own, sent: (self.sent.append(sent), post(own, sent))[1])
        monkeypatch.setattr(InlineLink, "ask", lambda own, sent: (self.sent.append(sent), ask(own, sent))[1])

        def noting(own: WorkerProposer, sequences: list[Any], rows: Any) -> RoundMessage:
            texts = [list(sequence.token_ids) for sequence in sequences]
            ids = [sequence.request_id for sequence in sequences]
            self.known.append((ids, [list(table) for table in rows.block_tables], list(rows.sampling), texts))
            return message(own, sequences, rows)

        monkeypatch.setattr(WorkerProposer, "_message", noting)

    def rounds(self) -> list[DraftRound]:
        """As a worker of its own reads them."""
        reader, rounds = ControlReader(), []
        for message in self.sent:
            if isinstance(message, ControlMessage):
                reader.read(message)
            elif isinstance(message, RoundMessage):
                read = reader.round(message)
                rounds.append(replace(read, texts=[list(text) for text in read.texts or []]))
        return rounds


@pytest.mark.quick("tight")
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_worker_knows_of_each_round_what_the_engine_knows(models: Any, monkeypatch: Any, memory: str) -> None:
    """Whoever comes, goes, is put off, and comes back."""
    overheard = Overheard(monkeypatch)
    with LLM(*models, **ASYNC, **{**OPTIONS, **MEMORIES[memory]}) as llm:
        llm.generate(PROMPTS, PARAMS)
    rounds = overheard.rounds()
    assert len(rounds) == len(overheard.known) > 10
    for read, (ids, tables, sampling, texts) in zip(rounds, overheard.known, strict=True):
        assert read.request_ids == ids and read.rows.block_tables == tables and read.rows.sampling == sampling
        assert read.texts == texts and read.rows.lengths == [len(text) for text in texts]
        assert read.rows.last_tokens == [text[-1] for text in texts]
        assert read.rows.previous_tokens == [text[-2:][0] for text in texts]


def test_only_what_changed_is_told(models: Any, monkeypatch: Any) -> None:
    overheard = Overheard(monkeypatch)
    with LLM(*models, **ASYNC, **OPTIONS, max_batch=3, block_size=16) as llm:
        llm.generate(PROMPTS[:3], PARAMS[:3])
    told = [message for message in overheard.sent if isinstance(message, ControlMessage)]
    rounds = [message for message in overheard.sent if isinstance(message, RoundMessage)]
    assert len(told) < len(rounds) / 2 and [message.number for message in told] == [*range(1, len(told) + 1)]
    assert [message.whole for message in told] == [True] + [False] * (len(told) - 1)
    assert set(told[0].new) == {0, 1, 2} and not any(message.new for message in told[1:])  # whoever leaves, or grows
    assert all(blocks and len(blocks) <= 2 for message in told for blocks in message.grown.values())


def test_after_an_interruption_everything_is_told_anew(models: Any, monkeypatch: Any) -> None:
    overheard = Overheard(monkeypatch)
    with LLM(*models, **ASYNC, **OPTIONS, max_batch=2) as llm:
        expected = llm.generate(PROMPTS[:2], PARAMS[:2])
        with monkeypatch.context() as patch:
            patch.setattr(InlineLink, "ask", lambda *told: (_ for _ in ()).throw(KeyboardInterrupt()))
            cancelled = llm.generate(PROMPTS[2:4], PARAMS[:2])
        again = llm.generate(PROMPTS[:2], PARAMS[:2])
    told = [message for message in overheard.sent if isinstance(message, ControlMessage)]
    assert {output.finish_reason for output in cancelled} == {"cancelled"}
    assert sum(message.whole for message in told) == 2 and not told[-1].whole
    assert [output.token_ids for output in again] == [output.token_ids for output in expected]
    overheard.rounds()  # without an error


def test_a_message_that_was_lost_is_an_error_in_words(tiny_pair: Any) -> None:
    setup = WorkerSetup(tiny_pair.draft, "float32", "cpu", 20, 8, 4, 1, DraftPlan(k=2), longest_table=4)
    round_by = {number: replace(round_of(5, 50, None), control=number) for number in (1, 2)}
    later = ControlMessage(3, [0])
    link = InlineLink(setup.make_worker())
    with pytest.raises(DraftWorkerError, match="a round goes by control message 1, and number 0 was the latest"):
        link.ask(round_by[1])
    link.post(control_of())
    with pytest.raises(DraftWorkerError, match="a round goes by control message 2, and number 1 was the latest"):
        link.ask(round_by[2])
    with pytest.raises(DraftWorkerError, match="control message 3 came after number 1"):
        link.post(later)
    assert link.ask(round_by[1]).answer(60).origins == ["draft"]
    elsewhere = ProcessLink(setup, start_timeout_s=60)
    try:
        with pytest.raises(DraftWorkerError, match="who is in the batch was lost"):
            elsewhere.ask(round_by[1]).answer(60)
    finally:
        elsewhere.close()
