"""Lines that begin with `/`: what they do to a session, and what is shown for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ssd_lab.chat.numbers import stats_table
from ssd_lab.chat.pieces import ORIGINS
from ssd_lab.chat.saving import load_talk, save
from ssd_lab.chat.session import SETTINGS, Session
from ssd_lab.common.parsing import parse_value
from ssd_lab.config import SamplingParams
from ssd_lab.display.round_tree import last_drawn, round_lines
from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError

SIGN = "/"


@dataclass(frozen=True)
class Command:
    """run: takes the session and what stands behind the name; returns what is shown."""

    arguments: str
    meaning: str
    run: Callable[[Session, str], str | Table]


def run_command(session: Session, line: str) -> str | Table:
    """Do what a line such as `/set temperature 0.7` says. Raises SsdLabError in one line; then nothing has changed."""
    name, _, argument = line.strip().removeprefix(SIGN).partition(" ")
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {SIGN}{near[0]}? " if near else ""
        raise ConfigError(f"no command {SIGN}{name}: {hint}{SIGN}help lists them; a message begins with another sign")
    return COMMANDS[name].run(session, argument.strip())


def _help(session: Session, argument: str) -> Table:
    rows = [(f"{SIGN}{name} {command.arguments}".strip(), command.meaning) for name, command in COMMANDS.items()]
    rows += [("Ctrl-C", "while it answers: stop the answer; at the prompt, twice: leave"), ("Ctrl-D", "leave")]
    return Table(("command", "what it does"), rows, sides=("left", "left"))


def _strategy(session: Session, argument: str) -> str:
    if not argument:
        return f"{session.model.name}\nthere are: {session.model.choices()}"
    session.model.switch(argument)
    return session.model.name


def _set(session: Session, argument: str) -> str | Table:
    name, _, value = argument.replace("=", " ", 1).partition(" ")
    if not name:
        fields = session.params.model_dump()
        known = SamplingParams.model_fields
        rows = [(each, str(fields[each]), known[each].description or "") for each in SETTINGS]
        return Table(("setting", "value", "meaning"), rows, sides=("left", "left", "left"))
    if not value.strip():
        raise ConfigError(f"/set {name} has no value: write /set temperature 0.7; settings are {', '.join(SETTINGS)}")
    session.set(name, parse_value(value.strip()))
    return f"{name} = {getattr(session.params, name)!r}"


def _system(session: Session, argument: str) -> str:
    session.system = argument or None
    return "no system message" if session.system is None else "the system message holds from the next answer on"


def _stats(session: Session, argument: str) -> Table:
    return stats_table(session.turns)


def _tree(session: Session, argument: str) -> str:
    trace = session.model.trace()
    number = last_drawn(trace)
    if argument:
        number = _round_number(argument, len(trace.rounds))
    assert number is not None  # a trace without rounds was refused
    record = trace.rounds[number].sequences[0]
    texts = trace.meta.get("token_texts", {})
    title = f"round {number + 1} of {len(trace.rounds)} of the last answer"
    return "\n".join([title, *round_lines(record, texts)])


def _round_number(argument: str, count: int) -> int:
    if not argument.isdecimal() or not 1 <= int(argument) <= count:
        raise ConfigError(f"/tree {argument}: the last answer has rounds 1 to {count}")
    return int(argument) - 1


def _legend(session: Session, argument: str) -> Table:
    return Table(("origin", "meaning"), list(ORIGINS.items()), sides=("left", "left"))


def _save(session: Session, argument: str) -> str:
    if not argument:
        raise ConfigError("/save needs a file: talk.json, talk.md, or of the last answer rounds.jsonl.gz, rounds.html")
    return save(session, Path(argument))


def _load(session: Session, argument: str) -> str:
    if not argument:
        raise ConfigError("/load needs a file that /save talk.json wrote")
    load_talk(session, Path(argument))
    return f"{len(session.turns)} turns; the conversation goes on"


def _reset(session: Session, argument: str) -> str:
    session.forget()
    return "the conversation begins anew"


COMMANDS: dict[str, Command] = {
    "help": Command("", "this table", _help),
    "strategy": Command("[NAME field=value ...]", "draft another way from now on: /strategy async_tree k=4", _strategy),
    "set": Command("[NAME VALUE]", "sampling of the answers to come: /set temperature 0.7", _set),
    "system": Command("[TEXT]", "the message before all others, or none", _system),
    "stats": Command("", "what each answer took", _stats),
    "tree": Command("[N]", "the last round that has a tree (or round N) of the last answer", _tree),
    "legend": Command("", "what the colours and marks mean", _legend),
    "save": Command("FILE", "talk.json, talk.md; of the last answer: rounds.jsonl.gz, rounds.html", _save),
    "load": Command("FILE", "go on with a conversation that was saved as .json", _load),
    "reset": Command("", "forget what was said", _reset),
}
