"""The models that the grid is run on, made once."""

from __future__ import annotations

import pytest

from ssd_lab.check.grid.cell import Models
from ssd_lab.check.grid.random_models import random_models


@pytest.fixture(scope="session")
def grid_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Random weights, a draft that differs from its target, an EAGLE3 head."""
    made = random_models(tmp_path_factory.mktemp("head"))
    engine = {"dtype": "float32", "threads": 1, "draft_link": "inline"}
    return Models("random models", made.target, made.draft, made.head, engine)
