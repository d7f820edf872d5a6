"""Shared by the tests of prompts: an empty place to work in, and real rows in the layouts of their sources."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssd_lab.bench.data import load_prompts
from ssd_lab.settings import settings


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of this machine reaches a test, nor a test's the next one."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SSD_")]:
        monkeypatch.delenv(name)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def gsm8k_rows() -> list[dict[str, Any]]:
    """Real rows as GSM8K's source has them."""
    return [{"question": each.text, "answer": each.reference} for each in load_prompts("gsm8k", 12)]
