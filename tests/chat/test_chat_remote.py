"""A conversation with a server: its pieces and counts, what it does not tell, and how it fails."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fake_openai import FakeServer, Reply

from ssd_lab.chat.commands import run_command
from ssd_lab.chat.remote import RemoteModel
from ssd_lab.chat.session import Session
from ssd_lab.client.address import Address
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError, ServerError, SsdLabError

SPECULATION = {"mean_acceptance_length": 3.5, "draft_acceptance_rate": 0.6}


def session_of(server: FakeServer, **params: Any) -> Session:
    return Session(RemoteModel(Address.of(server.url)), SamplingParams(**{"max_tokens": 8, **params}))


def say(session: Session, question: str = "Hi") -> str:
    return "".join(piece.text for piece in session.answer(question))


def test_answers_history_and_counts():
    with FakeServer(lambda number, body: Reply(per_event=3, speculation=SPECULATION)) as server:
        session = session_of(server, temperature=0.5, min_p=0.1)
        assert say(session) == "one two three"
        assert say(session, "Again") == "one two three"
        told = server.seen[1].body
        assert [message["role"] for message in told["messages"]] == ["user", "assistant", "user"]
        assert (told["temperature"], told["min_p"], told["max_tokens"], told["seed"]) == (0.5, 0.1, 8, 1)
        assert "top_k" not in told  # at its default
        numbers = session.turns[-1].numbers
        assert (numbers.num_tokens, numbers.finish_reason) == (9, "stop")
        assert (numbers.tokens_per_round, numbers.acceptance_rate) == (3.5, 0.6)
        assert numbers.first_token_s is not None
        session.model.close()


def test_what_a_server_does_not_tell_is_said():
    with FakeServer(lambda number, body: Reply(usage=False)) as server:
        session = session_of(server)
        say(session)
        assert "sent no counts" in session.turns[-1].numbers.notes[0]
        with pytest.raises(ConfigError, match="not sent over the API"):
            run_command(session, "/tree")
        with pytest.raises(ConfigError, match="not sent over the API"):
            run_command(session, "/save rounds.html")
        assert session.model.remarks()
        session.model.close()


def test_strategies_are_models_of_the_server():
    with FakeServer(models=("bundled:async_tree", "bundled:sync_chain")) as server:
        session = session_of(server)
        assert str(run_command(session, "/strategy sync_chain")).startswith("bundled:sync_chain at ")
        say(session)
        assert server.seen[0].body["model"] == "bundled:sync_chain"
        with pytest.raises(ConfigError, match="it has bundled:async_tree, bundled:sync_chain"):
            run_command(session, "/strategy eagle3")
        session.model.close()


@pytest.mark.parametrize(
    ("reply", "said", "reason", "kept"),
    [
        (Reply(status=429, said="queue is full"), "queue is full", "http 429", 0),
        (Reply(status=401, said="no"), "--api-key-env", "http 401", 0),
        (Reply(malformed_at=1), "no event", "malformed event", 1),
        (Reply(error_at=2), "the engine broke", "error in stream", 1),
        (Reply(drop_at=2), "connection", "connection broke", 1),
        (Reply(done=False, finish_reason=None), "middle of the answer", "ended early", 1),
    ],
)
def test_failures_are_told_and_the_next_message_works(reply: Reply, said: str, reason: str, kept: int):
    with FakeServer(lambda number, body: reply if number == 1 else Reply()) as server:
        session = session_of(server)
        say(session)
        with pytest.raises(ServerError) as failed:
            say(session, "More")
        assert said in str(failed.value)
        assert failed.value.reason == reason
        assert len(session.turns) == 1 + kept
        assert say(session, "Again") == "one two three"
        session.model.close()


def test_leaving_an_answer_closes_its_connection():
    with FakeServer(lambda number, body: Reply(words=("word ",) * 1000, gap_s=0.01)) as server:
        session = session_of(server)
        answer = session.answer("Hi")
        next(answer)
        answer.close()
        end_s = time.monotonic() + 10
        while server.running and time.monotonic() < end_s:
            time.sleep(0.02)
        assert server.seen[0].left
        assert session.turns[0].numbers.finish_reason == "cancelled"
        session.model.close()


def test_a_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "secret-key")
    with FakeServer() as server:
        address = Address.of(f"{server.url}/v1/", "MY_KEY")
        assert "secret-key" not in repr(address)
        session = Session(RemoteModel(address), SamplingParams())
        say(session)
        assert server.seen[0].headers["authorization"] == "Bearer secret-key"
        session.model.close()
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        Address.of("http://localhost", "NO_SUCH_KEY")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "", "http://host:port"])
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(ConfigError, match="write http://host:port"):
        Address.of(url)


def test_a_server_that_is_not_there():
    with FakeServer() as server:
        gone = server.url
    with pytest.raises(SsdLabError, match="is it running"):
        RemoteModel(Address.of(gone))
