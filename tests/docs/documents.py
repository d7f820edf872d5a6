"""Code blocks of the documentation, and how each is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 280
LANGUAGES = {"python", "bash"}
# in every process that a block starts: a command works or fails with two canned prompts as with all twelve, but for
# pages that fit a law to hundreds of rounds
FITTING = {"fan-out", "simulator"}
FEW_PROMPTS = """
from ssd_lab import demo
every = demo.canned_prompts
demo.canned_prompts = lambda: every()[:2]
"""
# <!-- not run: why --> or <!-- not run (lines 2, 5): why --> on the line before a block
_BLOCK = re.compile(
    r"^(?:<!-- not run(?: \(lines? (?P<lines>[\d, ]+)\))?: (?P<reason>[^>]+?) -->\n)?"
    r"(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """One fenced block. skipped: numbers (from 1) of its lines that are not run; None: it is not run at all."""

    path: Path
    line: int
    language: str
    body: str
    reason: str | None
    skipped: frozenset[int] | None

    @property
    def place(self) -> str:
        """Such as `docs/index.md:12`."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> str:
        """What is left to run."""
        kept = [text for number, text in enumerate(self.body.splitlines(), 1) if number not in (self.skipped or ())]
        return "\n".join(kept)


def documents() -> list[Path]:
    """Everything that a reader may copy a command from."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(path: Path) -> list[Block]:
    """The Python and shell blocks of one document."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        if match["language"] not in LANGUAGES:
            continue
        skipped: frozenset[int] | None = frozenset()
        if match["reason"]:
            skipped = frozenset(int(n) for n in match["lines"].split(",")) if match["lines"] else None
        indent = len(match["indent"])
        body = "\n".join(line[indent:] for line in match["body"].splitlines())
        line = text[: match.start("language")].count("\n") + 1
        found.append(Block(path, line, match["language"], body, match["reason"], skipped))
    return found


def run_python(blocks: list[Block], folder: Path) -> subprocess.CompletedProcess[str]:
    """A page's Python blocks in their order, in one process with one namespace: a reader would go on, too."""
    script = folder / "page.py"  # a file, because a draft in a process of its own imports the main module
    lines = ["if __name__ == '__main__':"]
    for block in blocks:
        lines.append(f"    exec(compile({block.commands!r}, {block.place!r}, 'exec'), globals())")
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return _run([sys.executable, str(script)], folder, blocks[0].path)


def run_shell(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell block, ending at the first command that fails; `.venv/bin/` is this interpreter's folder."""
    commands = block.commands.replace(".venv/bin/", "")
    return _run([shutil.which("bash") or "bash", "-euo", "pipefail", "-c", commands], folder, block.path)


def _run(command: list[str], folder: Path, page: Path) -> subprocess.CompletedProcess[str]:
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    program = tools / "ssd-lab"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ssd_lab.cli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    if page.stem not in FITTING:
        (tools / "sitecustomize.py").write_text(FEW_PROMPTS, encoding="utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SSD_")},
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{tools}{os.pathsep}{ROOT}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # threads that wait for a busy machine's cores take longer than one that does not
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
