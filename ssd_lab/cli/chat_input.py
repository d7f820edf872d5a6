"""Where a chat's lines come from: a prompt with history and completion at a terminal, else stdin line by line."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from ssd_lab.chat.commands import COMMANDS, SIGN
from ssd_lab.chat.session import SETTINGS
from ssd_lab.strategies import registry

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings

PROMPT = "> "


class Input(Protocol):
    """Lines of a user. is_terminal: is it a person who sees the prompt?"""

    is_terminal: bool

    def read(self) -> str | None:
        """The next line, None at the end. Raises KeyboardInterrupt."""

    def unread(self) -> AbstractContextManager[None]:
        """While something else is done: what is typed meanwhile is for the next `read`."""


def open_input() -> Input:
    """The prompt if stdin and stdout are a terminal, else plain lines."""
    return Prompted() if sys.stdin.isatty() and sys.stdout.isatty() else Piped()


class Piped:
    """A file or another program writes the lines."""

    is_terminal = False

    def __init__(self) -> None:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no text is refused, and the next one read

    def read(self) -> str | None:
        """The next line of stdin."""
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None

    def unread(self) -> AbstractContextManager[None]:
        """Nothing to do: the lines wait."""
        return nullcontext()


class Prompted:
    """A line editor: arrows go through what was typed before, TAB completes commands, pasted lines stay one message."""

    is_terminal = True

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession

        completer, keys = _completer(), _keys()
        self._session: PromptSession[str] = PromptSession(
            completer=completer, complete_while_typing=False, key_bindings=keys
        )
        self._as_found: list[Any] | None = None  # how the terminal was

    def read(self) -> str | None:
        """What is typed at the prompt. Ctrl-C clears a line; at an empty one it is raised, also if it comes while
        the prompt is being made.
        """
        early: list[bool] = []
        before = signal.signal(signal.SIGINT, lambda *_: early.append(True))
        try:
            return self._session.prompt(PROMPT, pre_run=lambda: self._interrupt() if early else None)
        except EOFError:
            return None
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def unread(self) -> Iterator[None]:
        """Keys do not show in an answer, and a pasted text stays one message; Ctrl-C is a signal as before."""
        try:
            import termios
        except ImportError:  # no POSIX system
            yield
            return
        terminal = sys.stdin.fileno()
        as_found = self._as_found = self._as_found or termios.tcgetattr(terminal)  # once: a Ctrl-C may cut off the end
        quiet = list(as_found)
        quiet[3] &= ~(termios.ECHO | termios.ICANON)  # a line that waits in a terminal has 4,096 bytes at most
        try:
            termios.tcsetattr(terminal, termios.TCSANOW, quiet)
            self._mark_pastes(True)
            yield
        finally:
            termios.tcsetattr(terminal, termios.TCSANOW, as_found)
            self._mark_pastes(False)

    def _mark_pastes(self, on: bool) -> None:
        from prompt_toolkit.utils import is_dumb_terminal

        if not is_dumb_terminal():
            output = self._session.app.output
            output.enable_bracketed_paste() if on else output.disable_bracketed_paste()
            output.flush()

    def _interrupt(self) -> None:
        self._session.app.exit(exception=KeyboardInterrupt())


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("c-c")
    def _clear_or_leave(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    return keys


def _completer() -> Completer:
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.document import Document

    class Commands(Completer):
        """Names of commands, then what they take."""

        def get_completions(self, document: Document, complete_event: object) -> Iterator[Completion]:
            """Those that begin with the word before the cursor."""
            text = document.text_before_cursor
            if text.startswith(SIGN):
                word = text.rpartition(" ")[2]
                for name in _candidates(text):
                    if name.startswith(word):
                        yield Completion(name, start_position=-len(word))

    return Commands()


def _candidates(text: str) -> list[str]:
    command, space, _ = text.partition(" ")
    if not space:
        return [f"{SIGN}{name}" for name in (*COMMANDS, "quit")]
    known = registry.all()
    if command == f"{SIGN}strategy":
        name, more, _ = text.partition(" ")[2].partition(" ")
        return [f"{field}=" for field in known[name].model_fields] if more and name in known else list(known)
    return list(SETTINGS) if command == f"{SIGN}set" else []
