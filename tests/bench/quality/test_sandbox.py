"""Candidates that loop, grow, fork, reach out or lie: each ends, does no harm, and does not pass."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd_lab.bench.quality import Limits, Program, SandboxResult, run_program

HARM = {
    "connecting": "import socket\nsocket.create_connection(('127.0.0.1', 9))",
    "connecting to others": "import socket\nsocket.create_connection(('192.0.2.1', 9), 1)",
    "reading": "assert not open({kept!r}).read()",
    "listing": "import os\nassert not os.listdir({folder!r})",
    "writing": "open({kept!r}, 'w').write('theirs')",
    "writing to the system": "open('/usr/theirs', 'w')",
    "writing beside its folder": "open('/theirs', 'w')",
    "shared memory": "open('/dev/shm/theirs', 'w')",
    "a new file": "open({folder!r} + '/new', 'w')",
    "removing": "import os\nos.remove({kept!r})",
    "renaming": "import os\nos.rename({kept!r}, 'here')",
    "changing rights": "import os\nos.chmod({kept!r}, 0)",
    "being root": "import os\nassert os.geteuid() and not os.setuid(0)",
    "ending others": "import os, signal\nos.kill(-1, signal.SIGTERM)",
    "lifting its limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (60, 60))",
    "forking": "import os\nos.fork()",
    "forking for ever": "import os\nwhile True: os.fork()",
    "a thread": "import threading\nthreading.Thread(target=print).start()",
    "a command": "import subprocess\nsubprocess.run(['true'], check=True)",
    "spawning": "import os\nos.posix_spawn('/bin/true', ['true'], {{}})",
}
LIMITS = Limits(cpu_s=1, wall_s=60, memory_bytes=1 << 28)


def run(program: str, tests: str = "", **limits: object) -> SandboxResult:
    """As it is run where it can be kept in, and by its limits alone elsewhere: for candidates that do no harm."""
    return run_program(Program(program, tests), LIMITS.model_copy(update={"unguarded": "run", **limits}))


@pytest.fixture(scope="module")
def guard() -> str:
    """What keeps candidates in on this machine."""
    result = run_program(Program("pass"), LIMITS.model_copy(update={"wall_s": 20.0}))
    if result.status == "refused":
        pytest.skip(f"this machine keeps no candidate in: {result.detail}")
    return result.guard


def test_a_right_program_passes_and_a_wrong_one_fails():
    assert run("def double(x):\n    return 2 * x", "assert double(3) == 6").status == "passed"
    wrong = run("def double(x):\n    return 3 * x", "assert double(3) == 6, 'double'")
    assert (wrong.status, wrong.detail) == ("failed", "AssertionError: double")


@pytest.mark.parametrize(
    ("program", "status", "detail"),
    [
        ("def f(:", "error", "SyntaxError"),
        ("1 / 0", "error", "ZeroDivisionError"),
        ("def f(): f()\nf()", "error", "RecursionError"),
        ("input()", "error", "EOFError"),
        ("class Odd(Exception):\n    def __str__(self): 1 / 0\nraise Odd", "error", "Odd"),
        ("raise ValueError('x' * 10**6)", "error", "ValueError: xxx"),
    ],
)
def test_what_it_raises_is_told_in_few_words(program: str, status: str, detail: str):
    result = run(program)
    assert result.status == status
    assert result.detail.startswith(detail)
    assert len(result.detail) <= 200


def test_an_endless_loop_ends_at_the_cpu_limit_even_if_it_catches_the_signal():
    assert run("while True: pass", wall_s=60).status == "cpu"  # on a busy machine it gets little of a second
    stubborn = "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass"
    assert run(stubborn, wall_s=60).status == "cpu"


def test_a_sleeper_ends_at_the_wall_limit():
    assert run("import time\ntime.sleep(600)", wall_s=0.5).status == "wall"  # longer than a test may take


def test_a_program_that_swallows_every_exception_still_ends():
    program = "import time\nwhile True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass"
    assert run(program, wall_s=0.5).status == "wall"


@pytest.mark.parametrize("program", ["x = 'a' * (1 << 33)", "x = []\nwhile True: x.append(bytearray(1 << 20))"])
def test_memory_is_limited(program: str):
    assert run(program).status == "memory"


@pytest.mark.usefixtures("guard")
def test_nothing_that_it_started_outlives_it():
    before = _children()
    run("import os\nfor _ in range(50):\n    try:\n        os.setsid(); os.fork()\n    except OSError: pass")
    run("import time\ntime.sleep(60)", wall_s=0.3)
    assert _children() == before


def _children() -> set[str]:
    own = str(os.getpid())
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "stat").read_text().rsplit(")", 1)[1].split()[1] == own:
                found.add(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("guard")
@pytest.mark.parametrize("what", HARM)
def test_it_reaches_nothing_outside(what: str, tmp_path: Path):
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    mode = kept.stat().st_mode
    result = run_program(Program(HARM[what].format(kept=str(kept), folder=str(tmp_path))), LIMITS)
    assert result.status == "error"
    assert kept.read_text() == "mine"
    assert kept.stat().st_mode == mode
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.usefixtures("guard")
def test_becoming_another_program_is_not_passing():
    assert run_program(Program("import os\nos.execv('/bin/true', ['true'])"), LIMITS).status == "ended"


@pytest.mark.usefixtures("guard")
def test_the_parent_cannot_be_ended():
    assert run_program(
        Program("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", "assert False"), LIMITS
    ).status in (
        "failed",
        "error",
    )


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes the only programs there are: each notes its arguments, then runs the given Python. Returns the notes."""
    notes, folder = tmp_path / "notes.jsonl", tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def made(**programs: str) -> Path:
        for name, source in programs.items():
            path = folder / name
            path.write_text(
                f"#!{sys.executable}\nimport json, os, sys\nwords = sys.argv[1:]\n"
                f"open({str(notes)!r}, 'a').write(json.dumps(words) + '\\n')\n{source}"
            )
            path.chmod(0o755)
        return notes

    return made


FAILS = "sys.exit('No permissions to create new namespace')"
AS_BWRAP = """
folder, script = words[words.index("/tmp") - 1], words[words.index("/candidate.py") - 1]
os.environ["TMPDIR"] = folder
os.execv(sys.executable, [sys.executable, script])
"""
AS_CONTAINER = """
if words[0] == "run":
    os.environ["TMPDIR"], script = (words[i + 1].split(":")[0] for i, word in enumerate(words) if word == "--volume")
    os.execv(sys.executable, [sys.executable, script])
"""


def noted(notes: Path) -> list[list[str]]:
    return [json.loads(line) for line in notes.read_text().splitlines()]


def test_where_nothing_keeps_it_in_it_is_not_run_and_the_words_say_what_to_do(only: Callable[..., Path]):
    only()
    result = run_program(Program("raise SystemExit"), LIMITS)
    assert result.status == "refused" and result.guard == ""
    for name in ("bwrap", "docker", "podman"):
        assert f"{name} is not installed" in result.detail
    for advice in ("apt install bubblewrap", "GSM8K needs neither", "--unguarded"):
        assert advice in result.detail
    assert run("def f(): pass", "f()").status == "passed"


def test_a_bwrap_that_may_make_no_namespaces_is_refused_with_its_own_words_and_tried_once(only: Callable[..., Path]):
    notes = only(bwrap=FAILS)
    for _ in range(2):
        result = run_program(Program("pass"), LIMITS)
        assert result.status == "refused"
        assert "bwrap does not work here: No permissions to create new namespace" in result.detail
    assert len(noted(notes)) == 1


def test_bwrap_is_told_to_leave_out_network_and_files(only: Callable[..., Path]):
    notes = only(bwrap=AS_BWRAP)
    assert run_program(Program("x = 1", "assert x == 1"), LIMITS) == SandboxResult("passed", guard="bwrap")
    probe, words = noted(notes)
    assert len(probe) == len(words)
    bound = {words[i + 2] for i, word in enumerate(words) if word.startswith(("--ro-bind", "--bind"))}
    assert {"/usr", "/tmp", "/candidate.py"} <= bound and not bound & {"/", "/home", "/root", "/var", "/etc"}
    assert [words[i + 2] for i, word in enumerate(words) if word == "--bind"] == ["/tmp"]  # nothing else can be written
    assert "--die-with-parent" in words and "--new-session" in words
    assert "--unshare-all" in words or {"--unshare-net", "--unshare-pid", "--unshare-ipc"} <= set(words)
    assert words[words.index("--cap-drop") + 1] == "ALL"


def test_a_container_is_taken_where_bwrap_does_not_work_and_is_removed(only: Callable[..., Path]):
    notes = only(bwrap=FAILS, docker=AS_CONTAINER)
    assert run_program(
        Program("import time\ntime.sleep(60)"), LIMITS.model_copy(update={"wall_s": 0.5})
    ) == SandboxResult("wall", "over 0.5 s on the clock", "docker")
    started, removed = noted(notes)[-2:]
    assert removed == ["rm", "--force", started[started.index("--name") + 1]]
    for option, value in (("--network", "none"), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges"),
                          ("--pull", "never")):  # fmt: skip
        assert started[started.index(option) + 1] == value
    assert "--read-only" in started
    assert started[started.index("--user") + 1].split(":")[0] != "0"


def test_it_has_a_folder_of_its_own_that_is_gone_afterwards():
    program = "import os\nopen('note', 'w').write('x')\nassert os.listdir() == ['note']\nassert False, os.getcwd()"
    for _ in range(2):
        result = run(program)
        assert result.status == "failed"
        folder = Path(result.detail.removeprefix("AssertionError: "))
        assert folder.is_absolute()
        assert not (folder / "note").exists()


def test_files_are_limited_each_and_together():
    assert run("open('big', 'wb').write(bytes(1 << 23))").detail.startswith("OSError")
    many = "for i in range(10**6):\n    open(str(i), 'wb').write(bytes(1 << 16))"
    assert run(many, folder_bytes=1 << 20).status == "disk"


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos._exit(0)",
        'import os\nfor i in range(20):\n    try: os.write(i, b\'{"status": "passed"}\\n\')\n    except OSError: pass',
        "import os\nos.closerange(0, 64)",
        "import ctypes\nctypes.string_at(0)",
        "import sys\nsys.modules['json'].dumps = lambda *_: 'passed'\nimport os\nos.write = print\nos._exit(0)",
    ],
)
def test_ending_early_or_writing_the_verdict_itself_is_not_passing(program: str):
    assert run(program, "assert False").status in ("ended", "failed", "error")


def test_leaving_by_system_exit_is_an_error():
    assert run("raise SystemExit(0)", "assert False").status == "error"


def test_it_sees_no_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_WORD", "swordfish")
    assert run("import os\nassert 'SECRET_WORD' not in os.environ").status == "passed"


def test_sets_have_the_same_order_each_time():
    program = "assert False, list({'a', 'b', 'c', 'd', 'e'})"
    assert run(program).detail == run(program).detail
