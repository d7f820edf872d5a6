"""Small targets for EAGLE3 heads."""

from __future__ import annotations

import pytest
import torch
from eagle3_checkpoints import VOCAB
from testing_models import random_tensors, tiny_config

from ssd_lab.models.loader import LoadedModel, from_tensors


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The tests share the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def target() -> LoadedModel:
    """A Llama of six layers."""
    config = tiny_config(VOCAB, num_layers=6, rope_theta=5000.0)
    return from_tensors(config, random_tensors(config, seed=1), dtype="float32")


@pytest.fixture(scope="session")
def qwen_target() -> LoadedModel:
    """A Qwen3 of six layers: q and k heads are normed."""
    config = tiny_config(VOCAB, num_layers=6, model_type="qwen3", qk_norm=True, rope_theta=1e6)
    return from_tensors(config, random_tensors(config, seed=2), dtype="float32")
