"""A conversation without a terminal: history, settings, strategies, origins of tokens, files, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ssd_lab
from ssd_lab.chat.commands import run_command
from ssd_lab.chat.local import LocalModel
from ssd_lab.chat.numbers import line_of
from ssd_lab.chat.pieces import BONUS, ORIGINS, RECOVERY
from ssd_lab.chat.session import Session
from ssd_lab.config import SamplingParams
from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError, PromptError, SsdLabError
from ssd_lab.strategies import registry

ENGINE = {"max_batch": 1, "threads": 1, "draft_link": "thread"}
QUESTION = "Why is the sky blue?"


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    opened = LocalModel(None, None, registry.config("async_tree", {"k": 4}), engine=ENGINE)
    yield opened
    opened.close()


@pytest.fixture
def session(model: LocalModel) -> Session:
    return Session(model, SamplingParams(max_tokens=24))


def say(session: Session, question: str = QUESTION) -> str:
    return "".join(piece.text for piece in session.answer(question))


def test_the_answer_is_that_of_a_run_and_the_history_is_read(session: Session):
    first = say(session)
    with ssd_lab.LLM(strategy="autoregressive", progress=False, threads=1) as llm:
        plain = llm.generate(QUESTION, session.params)[0].text
        second = say(session, "Why is that?")
        told = [
            {"role": "user", "content": QUESTION}, {"role": "assistant", "content": first},
            {"role": "user", "content": "Why is that?"},
        ]  # fmt: skip
        assert first == plain
        assert second == llm.generate([told], session.params)[0].text
    assert [turn.answer for turn in session.turns] == [first, second]


def test_every_token_has_an_origin_and_the_pieces_are_cut_where_it_changes(session: Session):
    pieces = list(session.answer(QUESTION))
    assert all(piece.origin in ORIGINS for piece in pieces)
    numbers = session.turns[-1].numbers
    assert sum(numbers.origins.values()) == numbers.num_tokens == 24
    trace = session.model.trace()
    records = [row for one in trace.rounds for row in one.sequences]
    own = sum(row.num_emitted > row.num_accepted for row in records)
    assert numbers.origins.get(RECOVERY, 0) + numbers.origins.get(BONUS, 0) == own
    # the tokens that the target chose itself, by their texts, in order
    texts = trace.meta["token_texts"]
    chosen = [texts[str(row.recovery_token)] for row in records if row.num_emitted > row.num_accepted]
    assert [piece.text for piece in pieces if piece.origin in (RECOVERY, BONUS)] == [text for text in chosen if text]


def test_a_stop_string_keeps_pieces_and_text_equal(session: Session):
    whole = say(session)
    session.forget()
    session.set("stop", [whole[20:24]])
    pieces = list(session.answer(QUESTION))
    assert "".join(piece.text for piece in pieces) == whole[:20]
    assert all(piece.origin in ORIGINS for piece in pieces)


def test_stopping_keeps_what_was_said_and_the_next_answer_works(session: Session, model: LocalModel):
    session.set("max_tokens", 200)
    free = model._llm.num_free_blocks
    answer = session.answer(QUESTION)
    begun = next(answer).text + next(answer).text
    answer.close()
    assert session.turns[-1].answer == begun
    assert session.turns[-1].numbers.finish_reason == "cancelled"
    assert "stopped" in line_of(session.turns[-1].numbers)
    assert model._llm.num_free_blocks == free
    session.set("max_tokens", 8)
    assert say(session, "And the sea?")


@pytest.mark.quick("sync_tree")
@pytest.mark.parametrize("strategy", ["autoregressive", "sync_tree", "async_tree k=2 f=1", "prompt_lookup", "eagle3"])
def test_strategies_change_and_the_text_does_not(session: Session, strategy: str):
    said = say(session)
    session.forget()
    run_command(session, f"/strategy {strategy}")
    assert session.model.name.split(", ")[1].startswith(strategy.split()[0])
    assert say(session) == said
    shown = run_command(session, "/tree")
    assert isinstance(shown, str)
    assert shown.startswith("round ")
    run_command(session, "/strategy async_tree k=4")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/strategy async_tre", "did you mean 'async_tree'"),
        ("/strategy async_tree k=99", "less than or equal to"),
        ("/strategy async_tree k", "name=value"),
        ("/strategy eagle3 head=/nowhere", "/nowhere"),
        ("/set temperature 11", "less than or equal to 10"),
        ("/set temperatur 1", "did you mean 'temperature'"),
        ("/set temperature", "has no value"),
        ("/set logprobs 3", "not shown in a chat"),
        ("/stat", "did you mean /stats"),
        ("/tree 1000", "rounds 1 to"),
        ("/save", "needs a file"),
        ("/save talk.doc", "the ending says"),
        ("/save /nowhere/talk.json", "cannot be written"),
        ("/load /nowhere/talk.json", "cannot be read"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_loses_nothing(session: Session, line: str, said: str):
    session.set("max_tokens", 4)
    say(session)
    turns, params, name = list(session.turns), session.params, session.model.name
    with pytest.raises(SsdLabError) as refused:
        run_command(session, line)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (session.turns, session.params, session.model.name) == (turns, params, name)
    assert say(session, "And then?")


def test_messages_that_cannot_be_answered_are_forgotten(session: Session, model: LocalModel):
    say(session)
    for question in ("  ", "word " * 2000):
        with pytest.raises(PromptError):
            say(session, question)
    assert len(session.turns) == 1


def test_the_oldest_turns_are_left_out_where_the_context_is_full(session: Session, model: LocalModel):
    session.system = "You are brief."
    session.set("max_tokens", model.context // 4)
    long = "word " * (model.context // 2)
    for _ in range(3):
        answer = session.answer(f"{long} What is it?")
        next(answer)
        answer.close()
    assert session.left_out == 2
    assert len(session.turns) == 3


def test_settings_and_seeds_decide_the_text(session: Session):
    for setting in ("temperature 0.8", "max_tokens 12"):
        run_command(session, f"/set {setting}")
    first, second = say(session), say(session)
    session.forget()
    assert (say(session), say(session)) == (first, second)
    run_command(session, "/set seed 7")
    session.forget()
    assert say(session) != first


def test_commands_show_tables(session: Session):
    for line, said in (("/help", "/strategy"), ("/set", "temperature"), ("/legend", "recovery"), ("/stats", "answer")):
        table = run_command(session, line)
        assert isinstance(table, Table)
        assert said in table.to_text()
    say(session)
    table = run_command(session, "/stats")
    assert isinstance(table, Table)
    assert table.rows[0][:3] == ("1", "async_tree (k=4)", "24")


def test_a_conversation_is_saved_and_goes_on(session: Session, tmp_path: Path):
    session.system = "Say it plainly."
    said = say(session)
    for name in ("talk.json", "talk.md", "rounds.jsonl.gz", "rounds.html"):
        assert name in str(run_command(session, f"/save {tmp_path / name}"))
    assert said.strip() in (tmp_path / "talk.md").read_text(encoding="utf-8")
    assert len(ssd_lab.load_trace(tmp_path / "rounds.jsonl.gz").rounds) == len(session.model.trace().rounds)
    other = Session(session.model, session.params)
    run_command(other, f"/load {tmp_path / 'talk.json'}")
    assert (other.turns, other.system) == (session.turns, session.system)
    broken = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    broken["turns"][0]["numbers"]["num_tokens"] = "many"
    (tmp_path / "broken.json").write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(ConfigError, match="no conversation"):
        run_command(other, f"/load {tmp_path / 'broken.json'}")
    assert len(other.turns) == 1


def test_a_model_without_a_template_is_refused(tiny_pair: Any):
    with pytest.raises(ConfigError, match="no chat template"):
        LocalModel(tiny_pair.target, tiny_pair.draft, registry.config("sync_chain", {}), engine=ENGINE)
