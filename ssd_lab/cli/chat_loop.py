"""The loop of a chat: read a line, do it or answer it, go on; what is wrong costs one line and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.chat.commands import SIGN, run_command
from ssd_lab.chat.session import Session
from ssd_lab.cli.chat_input import open_input
from ssd_lab.cli.chat_screen import Screen
from ssd_lab.display.tables import Table
from ssd_lab.errors import PromptError, SsdLabError

LEAVE = (f"{SIGN}quit", f"{SIGN}exit")


@dataclass(frozen=True)
class Ended:
    """How a chat was left. num_refused: lines that could not be done."""

    interrupted: bool
    num_refused: int


class Loop:
    """Talks until the input ends, `/quit`, or Ctrl-C twice at the prompt."""

    def __init__(self, session: Session, screen: Screen) -> None:
        self._session, self._screen = session, screen
        self._num_refused = 0
        self._is_terminal = False

    def run(self) -> Ended:
        """Until the user leaves."""
        lines = open_input()
        self._is_terminal = lines.is_terminal
        if lines.is_terminal:
            self._welcome()
        armed = False  # was Ctrl-C the last thing at the prompt?
        while True:
            try:
                line = lines.read()
            except KeyboardInterrupt:
                if armed or not lines.is_terminal:
                    return Ended(True, self._num_refused)
                armed = True
                self._screen.note("Ctrl-C once more, or Ctrl-D, leaves")
                continue
            armed = False
            if line is None or line.strip() in LEAVE:
                return Ended(False, self._num_refused)
            if line.strip():
                try:
                    with lines.unread():
                        self._do(line)
                except KeyboardInterrupt:
                    if not lines.is_terminal:
                        raise
                    self._screen.note("stopped")

    def _do(self, line: str) -> None:
        try:
            _check_is_text(line)
            if line.lstrip().startswith(SIGN):
                reply = run_command(self._session, line)
                self._screen.table(reply) if isinstance(reply, Table) else self._screen.lines(reply)
            else:
                self._answer(line)
        except Exception as error:  # a failed engine must not take the conversation with it: it can still be saved
            self._num_refused += 1
            self._screen.error(str(error) if isinstance(error, SsdLabError) else f"{type(error).__name__}: {error}")

    def _answer(self, question: str) -> None:
        session, before = self._session, len(self._session.turns)
        pieces = session.answer(question)
        self._screen.begin()
        try:
            for piece in pieces:
                self._screen.piece(piece)
        except KeyboardInterrupt:
            pieces.close()  # where it was raised outside of it
            if not self._is_terminal:
                raise
        finally:
            if len(session.turns) > before:
                self._screen.end(session.turns[-1].numbers)
        if len(session.turns) == before:
            self._screen.note("stopped before the first word; the question is forgotten")
        if session.left_out:
            self._screen.note(f"the context is full: the oldest {session.left_out} turns were not read")

    def _welcome(self) -> None:
        self._screen.note(self._session.model.name)
        for line in self._session.model.remarks():
            self._screen.note(line)
        self._screen.note("/help lists the commands; Ctrl-C stops an answer; Ctrl-D leaves")


def _check_is_text(line: str) -> None:
    try:
        line.encode()
    except UnicodeEncodeError:  # bytes that could not be decoded stand in it as lone surrogates
        raise PromptError("the line holds bytes that are no UTF-8: send text as UTF-8") from None
