"""Benchmarks that take a moment: the tiny pair, a run measured once, and a command line to call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.measure import run_in_turns
from ssd_lab.bench.result import BenchResult
from ssd_lab.settings import settings

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny_config(tiny_pair: Any) -> BenchConfig:
    """Two GSM8K prompts of 24 tokens and 8 tokens of output each, on one thread."""
    return BenchConfig(
        target=tiny_pair.target, draft=tiny_pair.draft, num_sequences=2, input_len=24, output_len=8, block_size=16,
        threads=1, draft_link="inline", dtype="float32", repeats=2, strategy="async_tree",
        strategy_fields={"k": 2, "f": 2},
    )  # fmt: skip


@pytest.fixture(scope="session")
def results(tiny_config: BenchConfig) -> tuple[BenchResult, BenchResult]:
    """The same prompts with and without speculation, in turns."""
    plain = tiny_config.model_copy(update={"strategy": "autoregressive", "strategy_fields": {}, "draft": None})
    first, second = run_in_turns([plain, tiny_config])
    return first, second


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Call `ssd-lab bench` in an empty folder, with no settings of this machine."""
    from ssd_lab.cli.main import app

    monkeypatch.chdir(tmp_path)
    for name in ("HF_CACHE", "DATASET_DIR", "TARGET_MODEL", "DRAFT_MODEL", "EAGLE3_SPECFORGE"):
        monkeypatch.delenv(f"SSD_{name}", raising=False)
    monkeypatch.setenv("SSD_HF_CACHE", str(tmp_path / "hub"))
    settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(app, ["bench", *arguments])
    settings.cache_clear()
