"""The tiny pair, loaded once, and the ways to run it."""

from __future__ import annotations

import pytest
from machine_threads import THREADS

from ssd_lab.models.loader import LoadedModel, load_model


@pytest.fixture(scope="session")
def target(tiny_pair) -> LoadedModel:
    return load_model(tiny_pair.target, dtype="float32")


@pytest.fixture(scope="session")
def draft(tiny_pair) -> LoadedModel:
    return load_model(tiny_pair.draft, dtype="float32")


@pytest.fixture
def make_llm(target: LoadedModel, draft: LoadedModel):
    """Build LLMs on the tiny pair; all are closed, and must then have every block free."""
    from ssd_lab import LLM

    made = []

    def make(**fields) -> LLM:
        options = {"draft_link": "inline", "progress": False, "threads": THREADS, "num_blocks": 400, **fields}
        llm = LLM(options.pop("target", target), options.pop("draft", draft), options.pop("strategy"), **options)
        made.append(llm)
        return llm

    yield make
    for llm in made:
        llm._engine.cancel_all()
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
        llm.close()
