"""A cell that takes a tenth of a second: two short texts of the tiny pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ssd_lab.bench.config import BenchConfig


@pytest.fixture(scope="session")
def cheap(tiny_pair: Any) -> Callable[..., BenchConfig]:
    """Makes a config of such a cell; fields change it."""

    def make(**fields: object) -> BenchConfig:
        given = {
            "strategy": "sync_chain", "strategy_fields": {"k": 2}, "target": tiny_pair.target,
            "draft": tiny_pair.draft, "datasets": ("example",), "num_sequences": 2, "input_len": 16, "output_len": 8,
            "max_model_len": 64, "block_size": 16, "threads": 1, "dtype": "float32", "device": "cpu", "warmup": 0,
        }  # fmt: skip
        return BenchConfig.model_validate(given | fields)

    return make
