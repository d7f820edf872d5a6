"""Ctrl-C before a command has begun."""

from __future__ import annotations

import subprocess
import sys

import pytest

INTERRUPTED_AT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, signal.default_int_handler)
from ssd_lab.cli.start import main
sys.argv = ["ssd-lab", "serve", "--port", "0"]
main()
"""


@pytest.mark.parametrize("module", ["typer", "ssd_lab.serve.config", "ssd_lab.serve.app"])
def test_ctrl_c_during_the_imports_is_one_line(module):
    code = INTERRUPTED_AT.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("interrupted")
