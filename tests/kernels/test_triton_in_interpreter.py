"""The Triton kernels on the CPU: the files of `on_device/` in processes of their own, in Triton's interpreter.

Triton decides when it is imported whether kernels are compiled or interpreted; in one process with other tests the
answer would depend on their order. Of the largest grids some cases (`grid`): a GPU has them all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDER = HERE / "on_device"
CHECK = "test_attention_check.py"  # of a study
KERNELS = sorted({file.name for file in FOLDER.glob("test_*.py")} - {CHECK})


def run_in_interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not extended", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parent.parent, check=False)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="triton is for Linux")
@pytest.mark.parametrize(
    "files",
    [pytest.param(KERNELS, id="kernels"), pytest.param([CHECK], id="check", marks=pytest.mark.extended)],
)
def test_kernels_in_the_interpreter(files: list[str]) -> None:
    """All in one process: each imports for seconds before its first test."""
    done = run_in_interpreter(*(str(FOLDER / file) for file in files))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* passed", done.stdout), done.stdout
    assert "skipped" not in done.stdout, done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="triton is for Linux")
def test_some_kernels_in_the_interpreter() -> None:
    """Of one file a few, for `make test`."""
    done = run_in_interpreter(str(FOLDER / "test_triton_rows.py"), "-k", "zeros or extremes or (gated and 16)")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* passed", done.stdout) and "skipped" not in done.stdout, done.stdout


def test_there_is_something_to_run() -> None:
    assert len(KERNELS) >= 6
