"""Tests of the whole engine on a GPU. Without one they are skipped, and say so; `scripts/gpu_tests.sh` runs them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

WHY_NOT = "no CUDA device: run scripts/gpu_tests.sh on a machine that has one"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)  # of thousands of tests each is looked at
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason=WHY_NOT))


@pytest.fixture(autouse=True)
def clean_device() -> Iterator[None]:
    """Each test begins and ends with nothing of another one's on the device."""
    yield
    gc.collect()
    torch.cuda.empty_cache()
