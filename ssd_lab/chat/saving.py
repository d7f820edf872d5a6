"""Conversations and rounds as files, by the ending of the file's name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from pydantic import TypeAdapter

from ssd_lab.chat.session import Session, Turn
from ssd_lab.errors import ConfigError

KIND = "ssd-lab chat"
VERSION = 1


def save(session: Session, file: Path) -> str:
    """Write the conversation (.json, .md) or the last answer's rounds (.jsonl, .jsonl.gz, .html); says what was
    written.

    Raises ConfigError for another ending, for a place that cannot be written, and where there is nothing to save.
    """
    try:
        if file.name.endswith((".jsonl", ".jsonl.gz")):
            trace = session.model.trace()
            trace.save(file)
            return f"{file}: {len(trace.rounds)} rounds of the last answer (`ssd-lab view {file}` shows them)"
        if file.suffix == ".html":
            session.model.trace().to_html(file)
            return f"{file}: the rounds of the last answer, to step through in a browser"
        if file.suffix not in (".json", ".md"):
            raise ConfigError(f"{file}: the ending says what is saved: .json, .md, .jsonl, .jsonl.gz or .html")
        text = _markdown(session) if file.suffix == ".md" else _json(session)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error
    return f"{file}: {len(session.turns)} turns"


def load_talk(session: Session, file: Path) -> None:
    """Go on with a saved conversation: its turns and its system message, in place of those that are here.

    Raises ConfigError for a file that is not there or that `save` did not write.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["kind"] != KIND or data["version"] > VERSION:
            raise ValueError("another kind of file, or of a later version")
        turns = TypeAdapter(list[Turn]).validate_python(data["turns"])
        system = data["system"]
        if not (system is None or isinstance(system, str)):
            raise TypeError("a system message that is no text")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is no conversation that /save wrote ({type(error).__name__})") from error
    session.forget()
    session.turns, session.system = turns, system


def _json(session: Session) -> str:
    document = {
        "kind": KIND,
        "version": VERSION,
        "model": session.model.name,
        "settings": session.params.model_dump(),
        "system": session.system,
        "turns": [dataclasses.asdict(turn) for turn in session.turns],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _markdown(session: Session) -> str:
    parts = [f"# Conversation with {session.model.name}"]
    parts += [f"*{session.system}*"] if session.system else []
    for turn in session.turns:
        parts += [f"**You:** {turn.question}", turn.answer.strip()]
    return "\n\n".join(parts) + "\n"
