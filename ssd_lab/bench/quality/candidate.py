"""Runs one candidate program and its tests: a script of its own, standard library only, started by `sandbox.py`.

Reads a job (JSON) from stdin, limits itself, runs, and writes one line of JSON to the stdout it was started with.
What the candidate prints goes nowhere. The job's token comes back with the verdict, so that a program which ends early
or writes to stdout itself does not pass.
"""

from __future__ import annotations

import ast
import doctest
import json
import math
import os
import resource
import sys
from contextlib import suppress
from typing import Any

MAX_DETAIL = 200


class SameValue(doctest.OutputChecker):
    """Compares an example's output by value where it is a literal ('a' is "a", 0.1 + 0.2 is 0.3), else as text."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Does what was printed equal what the example shows?"""
        try:
            return _same(ast.literal_eval(want.strip()), ast.literal_eval(got.strip()))
        except (ValueError, SyntaxError):
            return super().check_output(want, got, optionflags)


def _same(one: Any, other: Any) -> bool:
    """As `==`, but with room for rounding, and 1 is not True."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


class ExampleFailedError(AssertionError):
    """An example of the docstring gave something else."""


def run_examples(examples: list[list[str]], names: dict[str, Any]) -> None:
    """Run the docstring's examples; raises at the first that fails."""
    shown = [doctest.Example(source, want) for source, want in examples]

    class Runner(doctest.DocTestRunner):
        def report_failure(self, out: Any, test: Any, example: Any, got: str) -> None:
            raise ExampleFailedError(f"{example.source.strip()} gave {got.strip()}, not {example.want.strip()}")

        def report_unexpected_exception(self, out: Any, test: Any, example: Any, exc_info: Any) -> None:
            raise exc_info[1]

    test = doctest.DocTest(shown, names, "examples", None, None, None)
    Runner(checker=SameValue(), verbose=False).run(test, out=lambda _: None)


def run_job(job: dict[str, Any]) -> dict[str, str]:
    """Define the candidate, run the tests or examples; returns status and detail."""
    names: dict[str, Any] = {"__name__": "candidate"}
    try:
        exec(compile(job["program"], "<candidate>", "exec"), names)
        if job["examples"]:
            run_examples(job["examples"], names)
        else:
            exec(compile(job["tests"], "<tests>", "exec"), names)
    except MemoryError:
        return {"status": "memory", "detail": "over the memory limit"}
    except AssertionError as error:
        return {"status": "failed", "detail": _described(error)}
    except BaseException as error:  # SystemExit and KeyboardInterrupt are a failing candidate too
        return {"status": "error", "detail": _described(error)}
    return {"status": "passed", "detail": ""}


def _described(error: BaseException) -> str:
    name = "" if isinstance(error, ExampleFailedError) else f"{type(error).__name__}: "
    try:
        text = str(error)
    except Exception:  # the candidate's own class
        text = ""
    return f"{name}{text}"[:MAX_DETAIL].removesuffix(": ")


def limit(cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Give up what the program does not need, for good; what this system does not limit is left as it is.

    cpu_s: of CPU time. memory_bytes: of address space. file_bytes: of one file.
    """
    wanted = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 0,  # no process and no thread, except for root
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # past the soft limit of CPU time comes a signal that a program may catch, a second later one that it may not
        above = soft + 1 if kind == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else soft
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (soft, above))


def become(user: int) -> None:
    """Give up being root."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def main() -> None:
    """Program in, verdict out."""
    job = json.load(sys.stdin)
    answer = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    write, end, encode, token = os.write, os._exit, json.JSONEncoder().encode, job.pop("token")
    if job["user"] not in (None, os.getuid()):
        become(job["user"])
    os.chdir(os.environ["TMPDIR"])  # which is the user's
    limit(**job.pop("limits"))
    write(answer, (encode({"token": token, **run_job(job)}) + "\n").encode())
    end(0)  # no clean-up that the candidate may have registered


if __name__ == "__main__":
    main()
