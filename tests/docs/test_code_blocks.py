"""What a reader copies works: every block of the documentation runs, or says why it is not run here."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from documents import LIMIT_S, Block, blocks_of, documents, run_python, run_shell

FILES = {
    "prompts.jsonl": '{"prompt": "Name a bird."}\n',
    "my_module.py": (
        "from typing import ClassVar\n\nimport ssd_lab\n\n\n@ssd_lab.register_strategy\n"
        "class MyStrategy(ssd_lab.SequenceStrategy):\n    strategy_name: ClassVar[str] = 'my_strategy'\n\n"
        "    @property\n    def lookahead(self):\n        return 1\n\n"
        "    def draft(self, context):\n        return [context.token_ids[-1]]\n"
    ),
}
ALL = [block for path in documents() for block in blocks_of(path)]
SHELL = [block for block in ALL if block.language == "bash" and block.skipped is not None]
PYTHON_PAGES = sorted({block.path for block in ALL if block.language == "python" and block.skipped is not None})
# pages whose blocks run models for long
LONG_PYTHON = {
    "README", "eagle3", "fan-out", "index", "n-gram", "real-models", "saguaro-sampling", "several-gpus", "simulator",
    "teaching", "trees", "views", "your-own-strategy",
}  # fmt: skip
LONG_SHELL = {"README", "chat", "command-line", "full-size", "real-models", "several-gpus", "tune", "views"}


def marked(of: Path, long: set[str]) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.full,) if of.stem in long else ()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that examples speak of as the reader's own."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


@pytest.mark.grid(full=4, most=len(ALL))
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=marked(path, LONG_PYTHON)) for path in PYTHON_PAGES]
)
def test_python_blocks_of_a_page_run(path: Path, folder: Path):
    done = run_python([b for b in blocks_of(path) if b.language == "python" and b.skipped is not None], folder)
    assert done.returncode == 0, f"{path.name}:\n{done.stderr[-3000:]}"


@pytest.mark.grid(full=4, most=len(ALL))
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize(
    "block", [pytest.param(block, id=block.place, marks=marked(block.path, LONG_SHELL)) for block in SHELL]
)
def test_shell_blocks_run(block: Block, folder: Path):
    done = run_shell(block, folder)
    assert done.returncode == 0, f"{block.place}:\n{block.commands}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def test_a_block_that_is_not_run_says_why_in_words():
    reasons = {block.place: block.reason for block in ALL if block.reason is not None}
    assert all(len(reason.split()) >= 3 for reason in reasons.values()), reasons


def test_skipped_lines_exist_and_something_is_left_to_run():
    for block in ALL:
        if block.skipped:
            lines = block.body.splitlines()
            assert max(block.skipped) <= len(lines), block.place
            assert block.commands.strip(), f"{block.place}: no line is left; mark the whole block"


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "bash"], ids=lambda block: block.place)
def test_every_command_that_is_named_exists(block: Block):
    """Also in blocks that are not run: a command that was renamed must not live on in a document."""
    from typer.main import get_command

    from ssd_lab.cli.main import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for line in block.body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for program in ("ssd-lab", ".venv/bin/ssd-lab"):
            if program in words and len(words) > words.index(program) + 1:
                named = words[words.index(program) + 1]
                assert named in known or named.startswith("-"), f"{block.place}: no command {named}"


@pytest.mark.full
def test_a_broken_block_is_found(tmp_path: Path):
    """The runner itself: a wrong call fails, on whichever line it stands."""
    broken = Block(documents()[0], 1, "bash", "true\nssd-lab strategies no_such_strategy\ntrue", None, frozenset())
    assert run_shell(broken, tmp_path).returncode != 0
    python = Block(documents()[0], 1, "python", "import ssd_lab\nssd_lab.no_such_name", None, frozenset())
    assert run_python([python], tmp_path).returncode != 0
