"""These tests run on whatever runs Triton kernels: a CUDA device, or the CPU in Triton's interpreter.

The interpreter has to be asked for before triton is imported, so `test_triton_in_interpreter.py` runs each file here in
a process of its own with TRITON_INTERPRET=1. Without it and without a CUDA device they are skipped, and say so.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kernel_cases import INTERPRETED, poisoned_memory

from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.interface import Kernels

WHY_NOT = "no CUDA device; test_triton_in_interpreter.py runs this file in the interpreter"

if INTERPRETED:
    importlib.import_module("interpreted_triton")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)  # of thousands of tests each is looked at
    for item in items:
        if not INTERPRETED and str(item.path).startswith(here):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason=WHY_NOT))


@pytest.fixture(scope="session")
def forked_children() -> None:
    """Nothing here starts a process."""


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture(params=["torch", "triton"])
def kernels(request: pytest.FixtureRequest, device: torch.device) -> Kernels:
    """The reference too: what is asked of one is asked of the other."""
    return choose_kernels(device, request.param)


@pytest.fixture
def triton_kernels(device: torch.device) -> Kernels:
    return choose_kernels(device, "triton")


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    with poisoned_memory():
        yield
