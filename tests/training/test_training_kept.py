"""What training made is kept: Ctrl-C leaves a checkpoint after the step, weights are readable by others."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
import torch
from test_training import TINY, toy_corpus

from ssd_lab.training.config import TrainConfig
from ssd_lab.training.distill import train_draft
from ssd_lab.training.hf_files import save_hf
from ssd_lab.training.model import TrainableLlama, new_model

CONFIG = TrainConfig(tokens_per_microbatch=256, microbatches_per_step=1, max_steps=8, warmup_steps=2)


def trained(checkpoint: Path | None, interrupt_at: int | None, steps: list[int]) -> TrainableLlama:
    def on_step(step: int) -> None:
        steps.append(step)
        if step == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)

    target = new_model(TINY, seed=1, device="cpu").requires_grad_(False)
    return train_draft(
        target, toy_corpus(), TINY, CONFIG, checkpoint_path=checkpoint, checkpoint_steps=100, progress=False,
        on_step=on_step,
    )  # fmt: skip


def test_ctrl_c_in_training_leaves_the_step_that_was_done_and_the_same_command_goes_on(tmp_path: Path):
    before = signal.getsignal(signal.SIGINT)
    first: list[int] = []
    with pytest.raises(KeyboardInterrupt, match="interrupted after step 3"):
        trained(tmp_path / "draft.pt", 3, first)
    assert signal.getsignal(signal.SIGINT) is before
    second: list[int] = []
    resumed = trained(tmp_path / "draft.pt", None, second)
    assert (first, second) == ([1, 2, 3], [4, 5, 6, 7, 8])
    whole = trained(None, None, [])
    assert all(torch.equal(one, other) for one, other in zip(resumed.parameters(), whole.parameters(), strict=True)), (
        "to the same bits"
    )


def test_weights_are_as_readable_as_the_files_beside_them(tmp_path: Path):
    save_hf(new_model(TINY, seed=0, device="cpu"), tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]
    assert not [name for name in modes if name.endswith(".unfinished")]
