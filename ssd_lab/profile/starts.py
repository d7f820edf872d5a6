"""Seconds of a whole process to its first token: where no kernel is compiled yet, and where all are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.profile.first_token import FIRST

LIMIT_S = 600.0
KINDS = ("nothing compiled", "compiled", "compiled, once more")
TITLES = ("strategy", "kernels", "first token after, s")


@dataclass(frozen=True)
class Start:
    """seconds: from the start of the process until it has a token."""

    strategy: str
    kernels: str
    seconds: float


def measure_starts(strategy: str, arguments: dict[str, Any], *, limit_s: float = LIMIT_S) -> list[Start]:
    """One process after the other, with compiled kernels in a folder that is empty at first. arguments: of `LLM`, as
    JSON holds them. Raises ConfigError if one fails, or has no token after `limit_s`.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TRITON_CACHE_DIR": cache}
        given = json.dumps({"strategy": strategy, **arguments})
        return [Start(strategy, kernels, _first_token_s(given, environment, limit_s)) for kernels in KINDS]


def _first_token_s(arguments: str, environment: dict[str, str], limit_s: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "stdout"
        with said.open("w") as out, (Path(folder) / "stderr").open("w+") as errors:
            start_s = time.perf_counter()
            command = [sys.executable, "-m", "ssd_lab.profile.first_token", arguments]
            process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment)
            try:
                while FIRST not in said.read_text():
                    taken_s = time.perf_counter() - start_s
                    if process.poll() is not None or taken_s > limit_s:
                        errors.seek(0)
                        *_, last = ["nothing was said", *errors.read().strip().splitlines()]
                        end = "has none" if process.poll() is None else f"ended with {process.poll()}"
                        raise ConfigError(f"a process that was to make a token {end} after {taken_s:.0f} s: {last}")
                    time.sleep(0.005)
                found_s = time.perf_counter() - start_s
                process.wait(limit_s)
                return found_s
            finally:
                process.kill()
                process.wait()


def markdown(starts: list[Start]) -> str:
    """The section of a report."""
    rows = [[one.strategy, one.kernels, f"{one.seconds:.1f}"] for one in starts]
    return "## A whole process to its first token\n\n" + Table(TITLES, rows).to_markdown()
