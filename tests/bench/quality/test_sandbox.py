"""Candidates that loop, grow, fork, reach out or lie: each ends, does no harm, and does not pass."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ssd_lab.bench.quality import Job, Limits, SandboxResult, run_job

HARM = {
    "connecting": ("network", "import socket\nsocket.create_connection(('127.0.0.1', 9))"),
    "writing": ("files", "open({kept!r}, 'w').write('theirs')"),
    "a new file": ("files", "open({folder!r} + '/new', 'w')"),
    "removing": ("files", "import os\nos.remove({kept!r})"),
    "renaming": ("files", "import os\nos.rename({kept!r}, 'here')"),
    "changing rights": ("processes", "import os\nos.chmod({kept!r}, 0)"),
    "ending the parent": ("processes", "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)"),
    "lifting its limits": ("processes", "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (60, 60))"),
    "forking": ("processes", "import os\nos.fork()"),
    "forking for ever": ("processes", "import os\nwhile True: os.fork()"),
    "a thread": ("processes", "import threading\nthreading.Thread(target=print).start()"),
    "a command": ("processes", "import subprocess\nsubprocess.run(['true'], check=True)"),
    "spawning": ("processes", "import os\nos.posix_spawn('/bin/true', ['true'], {{}})"),
    "becoming another": ("processes", "import os\nos.execv('/bin/true', ['true'])"),
}
LIMITS = Limits(cpu_s=1, wall_s=4, memory_bytes=1 << 28)
LINUX = sys.platform == "linux"


def run(program: str, tests: str = "", **limits: float) -> SandboxResult:
    return run_job(Job(program, tests), LIMITS.model_copy(update=limits))


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


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
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


@pytest.fixture(scope="module")
def guarded() -> tuple[str, ...]:
    """What this system can forbid."""
    return run("pass").holds


@pytest.mark.parametrize("what", HARM)
def test_it_reaches_nothing_outside(what: str, tmp_path: Path, guarded: tuple[str, ...]):
    guard, program = HARM[what]
    if guard not in guarded:
        pytest.skip(f"this system does not guard {guard}: it has neither Landlock nor seccomp, or is no Linux")
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    mode = kept.stat().st_mode
    assert run(program.format(kept=str(kept), folder=str(tmp_path))).status == "error"
    assert kept.read_text() == "mine"
    assert kept.stat().st_mode == mode
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_where_a_guard_is_missing_nothing_is_run_unless_that_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    from ssd_lab.bench.quality import sandbox

    monkeypatch.setattr(sandbox, "_seatbelt", lambda folder: [])
    monkeypatch.setattr(sandbox, "GUARDS", ("files", "weather"))  # as on a kernel that cannot guard one of them
    result = run("raise SystemExit")
    assert result.status == "refused" and "this system cannot guard" in result.detail and "weather" in result.detail
    assert run("def f(): pass", "f()", unguarded="run").status == "passed"


def test_it_has_a_folder_of_its_own_that_is_gone_afterwards():
    program = "import os\nopen('note', 'w').write('x')\nassert os.listdir() == ['note']\nassert False, os.getcwd()"
    result = run(program)
    assert result.status == "failed"
    folder = Path(result.detail.removeprefix("AssertionError: "))
    assert folder.is_absolute()
    assert not folder.exists()


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
