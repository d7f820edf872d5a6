"""Runs a model's code in a process of its own: limits on CPU time, memory and wall time, its own temporary folder."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ssd_lab.bench.quality.isolation import END_S, find_isolation, unguarded

Status = Literal["passed", "failed", "error", "memory", "cpu", "wall", "disk", "ended", "refused"]

_SCRIPT = Path(__file__).with_name("candidate.py").resolve()
_POLL_S = 0.1
_MAX_ANSWER_BYTES = 1 << 16
_BY_SIGNAL = 128  # above it, the exit codes with which bwrap and containers tell of a signal


class Limits(BaseModel):
    """What a candidate may use. It has no network and nothing of the user's files: where neither bwrap nor a container
    works, it is not run unless `unguarded` says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu_s: int = Field(5, ge=1, description="CPU time, s")
    wall_s: float = Field(20.0, gt=0, description="time on the clock, s; generous, for machines that are busy")
    memory_bytes: int = Field(1 << 30, ge=1 << 26, description="address space")
    file_bytes: int = Field(1 << 20, ge=0, description="size of one file")
    folder_bytes: int = Field(1 << 26, ge=0, description="size of all files")
    unguarded: Literal["refuse", "run"] = Field("refuse", description="what to do where nothing keeps the candidate in")


@dataclass(frozen=True)
class Program:
    """Source, and what it is judged by: `examples` (source, wanted output) if there are any, else `tests`."""

    source: str
    tests: str = ""
    examples: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class SandboxResult:
    """How it ended.

    status: `passed`; `failed` (an assertion or example), `error` (an exception), `memory`, `cpu`, `wall`, `disk` (a
    limit), `ended` (the process was gone before its tests were through), `refused` (it was not run: see `Limits`).
    guard: what kept it in, `bwrap`, `docker` or `podman`; empty if nothing did.
    """

    status: Status
    detail: str = ""
    guard: str = ""


def run_program(program: Program, limits: Limits | None = None) -> SandboxResult:
    """Run one to its verdict; everything that it started is dead and its folder gone when this returns."""
    limits = limits or Limits()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="ssd_lab_candidate_", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        isolation = find_isolation(_SCRIPT, folder)
        if isinstance(isolation, str):
            if limits.unguarded == "refuse":
                return SandboxResult("refused", f"not run: {isolation}")
            isolation = unguarded(_SCRIPT, folder)
        if isolation.user is not None:
            os.chown(folder, isolation.user, isolation.user)
        message = {
            "token": token,
            "program": program.source,
            "tests": program.tests,
            "examples": program.examples,
            "limits": limits.model_dump(include={"cpu_s", "memory_bytes", "file_bytes"}),
            "user": isolation.user,
        }
        with tempfile.TemporaryFile("w+", encoding="utf-8") as stdin:  # without a name: the candidate must not find it
            json.dump(message, stdin)
            stdin.seek(0)
            process = subprocess.Popen(
                isolation.command,
                cwd=folder,
                env=isolation.environment,
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
            isolation.end()
            assert process.stdout is not None
            process.stdout.close()
    return replace(result, guard=isolation.name)


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
    return SandboxResult("wall", f"over {limits.wall_s:g} s on the clock")


def _verdict(answer: bytes, token: str) -> SandboxResult:
    try:
        document = json.loads(answer)
        if secrets.compare_digest(str(document["token"]), token):
            return SandboxResult(document["status"], document["detail"])
    except (ValueError, KeyError, TypeError):
        pass
    return SandboxResult("ended", "it wrote to the verdict's pipe")


def _without_verdict(exit_code: int, limits: Limits) -> SandboxResult:
    number = -exit_code if exit_code < 0 else exit_code - _BY_SIGNAL
    if number in (signal.SIGXCPU, signal.SIGKILL):  # the soft limit, and the hard one a second later
        return SandboxResult("cpu", f"over {limits.cpu_s} s of CPU time")
    if number in set(signal.Signals):
        return SandboxResult("ended", f"ended by {signal.Signals(number).name}")
    return SandboxResult("ended", f"ended with exit code {exit_code} before its tests were through")


def _folder_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(root, name)).st_size
    return total
