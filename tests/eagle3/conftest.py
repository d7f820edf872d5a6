"""Small targets for EAGLE3 heads, random ones and one that learned to count."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from eagle3_checkpoints import VOCAB
from eagle3_counting import HEAD, RUN, SHAPE, TRAINING, documents
from eagle3_twin import Twin
from testing_models import random_tensors, tiny_config

from ssd_lab.models.eagle3.loader import load_eagle3
from ssd_lab.models.loader import LoadedModel, from_tensors, load_model
from ssd_lab.training.eagle3 import train_eagle3
from ssd_lab.training.eagle3_export import save_head
from ssd_lab.training.hf_files import save_hf
from studies.bundled_models.train_target import train_target


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


@dataclass(frozen=True)
class Counting:
    """A target that counts, and the folder of it and of heads trained for it, with the whole vocabulary and a part."""

    target: LoadedModel
    folder: Path

    @property
    def whole(self) -> str:
        """The head with all tokens."""
        return str(self.folder / "whole")

    @property
    def part(self) -> str:
        """The head with some of them."""
        return str(self.folder / "part")

    def twin(self, head: str) -> Twin:
        """The slow computation of this head's drafts."""
        return Twin(self.target, load_eagle3(head, self.target))


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    """Trained in seconds, once for all workers; the heads' guesses are often right and sometimes wrong."""
    torch.set_num_threads(1)
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "counting"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "trained").exists():
            train_counting(folder)
            (folder / "trained").touch()
    target = load_model(folder / "target", dtype="float32")
    return Counting(target, folder)


def train_counting(folder: Path) -> None:
    """Its target and its heads."""
    corpus = documents(120)
    model = train_target(
        corpus, SHAPE, replace(RUN, max_steps=140, embedding_lr=1e-2), device="cpu", progress=False
    ).requires_grad_(False)
    save_hf(model, folder / "target")
    for name, size in (("whole", None), ("part", 50)):
        head, ids, _ = train_eagle3(
            model, corpus, replace(HEAD, draft_vocab_size=size), TRAINING, device="cpu", progress=False
        )
        save_head(head, model.config, ids, folder / name)
