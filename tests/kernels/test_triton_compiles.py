"""Every Triton kernel compiles to machine code for the least and the usual GPU; none is needed for that."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.grid(full=2)
@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile(capability: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    program = Path(__file__).parent / "compile_for_gpus.py"
    done = subprocess.run(
        [sys.executable, str(program), str(capability)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    names = "attend_splits add_splits _add_rms_norm _rope_and_write _gated_silu _sums _draw split_product"
    names += " whole_product _sum_over_ranks _gather_over_ranks _add_rms_norm_over_ranks"
    names += " early_product" if capability == 90 else ""
    assert set(names.split()) <= set(done.stdout.split())
