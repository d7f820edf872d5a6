"""The models that the grid is run on, made once."""

from __future__ import annotations

import pytest

from ssd_lab.check.cells import Setting
from ssd_lab.check.grid import RANDOM, GridExtent, settings_by_models


@pytest.fixture(scope="session")
def grid_setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Random weights, a draft that differs from its target, an EAGLE3 head; asked as the grid asks."""
    engine = {"threads": 1, "draft_link": "inline"}
    return settings_by_models(tmp_path_factory.mktemp("head"), GridExtent(bundled_prompts=0), 0, engine)[RANDOM]
