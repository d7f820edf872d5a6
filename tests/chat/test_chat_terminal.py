"""The command in a real terminal, and with pipes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from typing import Any

import pexpect
import pytest
from fake_openai import FakeServer, Reply
from typer.testing import CliRunner

from ssd_lab.cli.main import app

COMMAND = ["-m", "ssd_lab.cli", "chat", "--threads", "1", "-s", "sync_chain k=4"]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
LIMIT_S = 180


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    return {**kept, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **more}


def opened(*arguments: str, **variables: str) -> Any:
    child = pexpect.spawn(
        sys.executable, [*COMMAND, *arguments], env=environment(**variables), encoding="utf-8", timeout=LIMIT_S,
        dimensions=(50, 200),
    )  # fmt: skip
    child.expect("Ctrl-D leaves")
    child.expect(">")
    return child


def plain(text: str) -> str:
    return ANSI.sub("", text).replace("\r", "")


def prompt_is_there(terminal: Any) -> None:
    """Once it listens: what is typed before may be lost, and a Ctrl-C be another's."""
    terminal.expect("2004h")


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_talk_in_a_terminal():
    terminal = opened("-n", "200")
    try:
        a_talk_in_colours(terminal)
        commands_errors_and_the_tree(terminal)
        control_c_stops_the_answer_only(terminal)
        tab_completes_and_control_c_clears_a_line(terminal)
        control_c_twice_at_the_prompt_leaves(terminal)
    finally:
        terminal.close(force=True)


def a_talk_in_colours(terminal: Any) -> None:
    terminal.sendline("/set max_tokens 16")
    terminal.expect("max_tokens = 16")
    terminal.sendline("Why is the sky blue?")
    terminal.expect("tokens by origin: ")
    before = terminal.before
    assert re.search(r"\x1b\[4;38;5;\d+m", before), before  # underlined, in a colour: what the draft gave
    assert re.search(r"\x1b\[1;38;5;\d+m", before), before  # bold: what the target said itself
    assert "<d>" not in before
    assert re.search(r"16 tokens, [\d.]+ tokens/s, acceptance \d+%", plain(before))
    terminal.expect("draft.* \\d+, ")


def commands_errors_and_the_tree(terminal: Any) -> None:
    terminal.sendline("/tree")
    terminal.expect("verified chain")
    terminal.sendline("/set temperature hot")
    terminal.expect("error: /set: temperature=")
    terminal.sendline("/stats")
    terminal.expect("tokens/round")
    terminal.expect("1 answer, 16 tokens")


def control_c_stops_the_answer_only(terminal: Any) -> None:
    terminal.sendline("/set max_tokens 900")
    terminal.expect("max_tokens = 900")
    terminal.sendline("/set ignore_eos true")
    terminal.expect("ignore_eos = True")
    terminal.sendline("Write a long story.")
    terminal.expect(r"\x1b\[4;38;5;\d+m")  # the first draft token
    terminal.sendintr()
    terminal.expect("stopped")
    prompt_is_there(terminal)
    terminal.sendline("/set max_tokens 8")
    terminal.expect("max_tokens = 8")
    terminal.sendline("And the sea?")
    terminal.expect("8 tokens, ")
    terminal.sendline("/stats")
    terminal.expect("3 answers")


def tab_completes_and_control_c_clears_a_line(terminal: Any) -> None:
    terminal.send("/lege\t")
    terminal.expect("nd")
    terminal.send("\r")
    terminal.expect("nothing was drafted")
    terminal.send("half a message")
    terminal.expect("message")
    terminal.sendintr()
    terminal.sendline("/stats")
    terminal.expect("3 answers")
    prompt_is_there(terminal)


def control_c_twice_at_the_prompt_leaves(terminal: Any) -> None:
    terminal.sendintr()
    terminal.expect("once more")
    prompt_is_there(terminal)
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130


@pytest.mark.full
def test_without_colours_marks_say_the_same():
    child = opened("-n", "12", NO_COLOR="1")
    child.sendline("Why is the sky blue?")
    child.expect("tokens by origin: ")
    assert not re.search(r"\x1b\[[\d;]*38;5", child.before)
    assert "<d>" in plain(child.before)
    assert "<r>" in plain(child.before)
    prompt_is_there(child)
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.full
def test_a_server_in_a_terminal():
    with FakeServer(lambda number, body: Reply(words=("Hello ", "\x1b[31mred"))) as server:
        child = pexpect.spawn(
            sys.executable, ["-m", "ssd_lab.cli", "chat", "--url", server.url], env=environment(), encoding="utf-8",
            timeout=LIMIT_S, dimensions=(50, 200),
        )  # fmt: skip
        child.expect("A server sends text and counts")
        child.expect(">")
        child.sendline("Hi")
        child.expect("2 tokens")
        assert "Hello \\x1b[31mred" in child.before  # what a model says does not reach the terminal's controls
        child.sendline("/tree")
        child.expect("error: rounds are not sent over the API")
        child.sendline("/quit")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0


def piped(stdin: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *COMMAND, *arguments], input=stdin, env=environment(**variables), capture_output=True,
        encoding="utf-8", errors="surrogateescape", timeout=LIMIT_S, check=False,
    )  # fmt: skip


def test_lines_of_a_pipe_are_answered_and_nothing_else_is_on_stdout():
    """In this process; the next test starts one."""
    done = CliRunner().invoke(app, [*COMMAND[2:], "-n", "8"], input="Why is the sky blue?\n\n/set temperature 0\n")
    assert done.exit_code == 0, done.output
    answer, reply = done.stdout.splitlines()
    assert answer.startswith("The ")
    assert reply == "temperature = 0.0"
    assert "8 tokens" in done.stderr
    assert "\x1b" not in done.stdout


@pytest.mark.full
def test_what_was_refused_in_a_pipe_is_in_the_exit_code():
    done = piped("/nonsense\n/system \udcff\nHi\n", "-n", "4", PYTHONUTF8="1", LC_ALL="C.UTF-8")
    assert done.returncode == 2
    first, second = done.stderr.splitlines()[:2]
    assert first.startswith("error: no command /nonsense")
    assert second.startswith("error: the line holds bytes that are no UTF-8")
    assert done.stdout.strip()


@pytest.mark.full
def test_what_is_typed_and_pasted_during_an_answer_is_for_the_next_prompt():
    asked, go_on, asked_again = threading.Event(), threading.Event(), threading.Event()

    def script(number: int, body: dict[str, Any]) -> Reply:
        (asked_again if asked.is_set() else asked).set()
        assert go_on.wait(LIMIT_S)
        return Reply()

    with FakeServer(script) as server:
        child = pexpect.spawn(
            sys.executable, ["-m", "ssd_lab.cli", "chat", "--url", server.url], env=environment(), encoding="utf-8",
            timeout=LIMIT_S, dimensions=(50, 200),
        )  # fmt: skip
        child.expect("Ctrl-D leaves")
        prompt_is_there(child)
        child.sendline("Hi")
        assert asked.wait(LIMIT_S)
        child.expect("2004h")  # pastes are marked here too
        child.send("\x1b[200~two\rlines\x1b[201~\r")
        go_on.set()
        child.expect("3 tokens")
        assert "lines" not in child.before
        assert asked_again.wait(LIMIT_S)
        child.expect("3 tokens")
        assert server.seen[1].body["messages"][-1]["content"] == "two\nlines"
        child.close(force=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://127.0.0.1:9", "--draft", "x"], "draft: of a model in this process"),
        (["--url", "http://127.0.0.1:9", "-s", "sync_chain"], "strategy: of a model in this process"),
        (["--model", "x"], "--url"),
        (["--api-key-env", "X"], "--url"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], said: str):
    done = CliRunner().invoke(app, ["chat", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr
