"""The Python on these pages runs, from top to bottom."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssd_lab.strategies.registry import registry

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["guides/your-own-strategy.md", "strategies/trees.md", "strategies/n-gram.md"]


def blocks(page: str) -> list[tuple[int, str]]:
    """Line number and text of each block of Python."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start(1)].count("\n"), match.group(1)) for match in found]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and no strategy of a page stays registered."""
    threads, known = torch.get_num_threads(), dict(registry._classes)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    registry._classes = known


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_code_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # pydantic looks up names where a class was defined
    monkeypatch.setenv("SSD_THREADS", "1")
    code = blocks(page)
    assert code
    for line, text in code:
        exec(compile("\n" * line + text, str(DOCS / page), "exec"), module.__dict__)
