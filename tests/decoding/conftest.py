"""Pure maths: one thread, and no clock for hypothesis on a machine that others use."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The tests share the machine."""
    torch.set_num_threads(1)
