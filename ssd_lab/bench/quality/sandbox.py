"""Runs a model's code in a process of its own: limits on CPU time, memory and wall time, its own temporary folder."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["passed", "failed", "error", "memory", "cpu", "wall", "disk", "ended", "refused"]
GUARDS = ("files", "network", "processes")

_CHILD = Path(__file__).with_name("candidate.py")
_POLL_S = 0.1
START_S = 60.0  # for a Python that does nothing
END_S = 10.0  # for a process group that was killed
_MAX_ANSWER_BYTES = 1 << 16
_SEATBELT = Path("/usr/bin/sandbox-exec")


class Limits(BaseModel):
    """What a candidate may use. It has no network and may change no file outside its folder: where the system cannot
    forbid that (see `SandboxResult.holds`), it is not run unless `unguarded` says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu_s: int = Field(5, ge=1, description="CPU time, s")
    wall_s: float = Field(20.0, gt=0, description="time on the clock, s; generous, for machines that are busy")
    memory_bytes: int = Field(1 << 30, ge=1 << 26, description="address space (on a Mac: resident memory)")
    file_bytes: int = Field(1 << 20, ge=0, description="size of one file")
    folder_bytes: int = Field(1 << 26, ge=0, description="size of all files")
    unguarded: Literal["refuse", "run"] = Field(
        "refuse", description="what to do where the system cannot guard files, network and processes"
    )


@dataclass(frozen=True)
class Job:
    """A program, and what it is judged by: `examples` (source, wanted output) if there are any, else `tests`."""

    program: str
    tests: str = ""
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class SandboxResult:
    """How it ended.

    status: `passed`; `failed` (an assertion or example), `error` (an exception), `memory`, `cpu`, `wall`, `disk` (a
    limit), `ended` (the process was gone before its tests were through), `refused` (it was not run: see `Limits`).
    holds: which of files, network and processes the system guarded beyond the limits.
    """

    status: Status
    detail: str = ""
    holds: tuple[str, ...] = ()


def run_job(job: Job, limits: Limits | None = None) -> SandboxResult:
    """Run one job to its verdict; everything that it started is dead and its folder gone when this returns."""
    limits = limits or Limits()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="ssd_lab_candidate_", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        seatbelt = _seatbelt(folder)
        message = {
            "token": token,
            "program": job.program,
            "tests": job.tests,
            "examples": job.examples,
            "limits": limits.model_dump(include={"cpu_s", "memory_bytes", "file_bytes"}),
            "needs": () if seatbelt or limits.unguarded == "run" else GUARDS,
        }
        with (folder / "job.json").open("w+", encoding="utf-8") as stdin:
            json.dump(message, stdin)
            stdin.seek(0)
            (folder / "job.json").unlink()  # the candidate must not find its token
            process = subprocess.Popen(
                [*seatbelt, sys.executable, "-P", "-s", "-S", "-B", str(_CHILD)],
                cwd=folder,
                env={"PYTHONHASHSEED": "0", "HOME": str(folder), "TMPDIR": str(folder)},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            result = _watch(process, token, folder, limits)
        finally:
            with suppress(ProcessLookupError, PermissionError):  # a Mac says the latter of a group of zombies
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(END_S)
            assert process.stdout is not None
            process.stdout.close()
    if seatbelt:
        return SandboxResult(result.status, result.detail, ("files", "network", "processes"))
    return result


def _watch(process: subprocess.Popen[bytes], token: str, folder: Path, limits: Limits) -> SandboxResult:
    """Wait for the verdict or the first limit that is broken."""
    assert process.stdout is not None
    deadline_s = time.monotonic() + limits.wall_s
    answer, is_open = b"", True
    while time.monotonic() < deadline_s:
        if is_open:
            if select.select([process.stdout], [], [], _POLL_S)[0]:
                piece = os.read(process.stdout.fileno(), 4096)
                answer, is_open = answer + piece, bool(piece)
            if answer.endswith(b"\n") or len(answer) > _MAX_ANSWER_BYTES:
                return _verdict(answer, token)
        else:  # it closed its output: it has ended, or it goes on without
            with suppress(subprocess.TimeoutExpired):
                return _without_verdict(process.wait(_POLL_S), limits)
        if _folder_bytes(folder) > limits.folder_bytes:
            return SandboxResult("disk", f"over {limits.folder_bytes} bytes of files")
        if sys.platform == "darwin" and _resident_bytes(process.pid) > limits.memory_bytes:
            return SandboxResult("memory", f"over {limits.memory_bytes} bytes of memory")
    return SandboxResult("wall", f"over {limits.wall_s:g} s on the clock")


def _verdict(answer: bytes, token: str) -> SandboxResult:
    try:
        document = json.loads(answer)
        if secrets.compare_digest(str(document["token"]), token):
            return SandboxResult(document["status"], document["detail"], tuple(document["holds"]))
    except (ValueError, KeyError, TypeError):
        pass
    return SandboxResult("ended", "it wrote to the verdict's pipe")


def _without_verdict(exit_code: int, limits: Limits) -> SandboxResult:
    if exit_code in (-signal.SIGXCPU, -signal.SIGKILL):  # the soft limit, and the hard one a second later
        return SandboxResult("cpu", f"over {limits.cpu_s} s of CPU time")
    if exit_code < 0:
        return SandboxResult("ended", f"ended by {signal.Signals(-exit_code).name}")
    return SandboxResult("ended", f"ended with exit code {exit_code} before its tests were through")


def _folder_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def _resident_bytes(group: int) -> int:
    """Memory of a process group, where the system does not limit address space."""
    command = ["/bin/ps", "-o", "rss=", "-g", str(group)]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=False)
    return 1024 * sum(int(line) for line in listed.stdout.split())


def _seatbelt(folder: Path) -> list[str]:
    """On a Mac, the command that starts another without network, new processes and writing outside the folder."""
    if sys.platform != "darwin" or not _SEATBELT.exists():
        return []
    command = [str(_SEATBELT), "-p", _profile(folder)]
    return command if _starts(tuple(command[:2]), _profile(folder.parent)) else []


def _profile(folder: Path) -> str:
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return (
        "(version 1)(allow default)(deny network*)(deny process-fork)(deny signal (target others))(deny file-write*)"
        f'(allow file-write* (subpath "{quoted}") (literal "/dev/null"))'
    )


@lru_cache(maxsize=1)
def _starts(command: tuple[str, ...], profile: str) -> bool:
    """Does this Mac's sandbox run Python with such a profile? If not, the limits alone have to do."""
    program = [*command, profile, sys.executable, "-c", ""]
    started = subprocess.run(program, capture_output=True, timeout=START_S, check=False)
    return started.returncode == 0
