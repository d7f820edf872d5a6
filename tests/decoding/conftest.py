"""Pure maths: one thread, and examples that do not depend on the day."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The tests share the machine."""
    torch.set_num_threads(1)
