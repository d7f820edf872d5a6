"""The check that a measured cut must pass: it finds the right ones right, and a wrong one wrong."""

from __future__ import annotations

import pytest
import torch
from attention_tunings import EARLY_SOME, GATHERED, SMALL
from kernel_cases import INTERPRETED

from ssd_lab.kernels.triton_ops.attention_tuning import AttentionTuning
from studies.tune_kernels import attention_timing

TUNINGS = [AttentionTuning(), GATHERED, EARLY_SOME, AttentionTuning(split=64, gathered=True)]


def test_right_variants_pass(device: torch.device) -> None:
    """The interpreter cuts bfloat16 off instead of rounding, which errs more than plain torch does."""
    for error, same in attention_timing.check(TUNINGS, SMALL, 150, 3, device.type):
        assert same and error < (4 if INTERPRETED else 1.25)


def test_one_bit_or_a_lost_key_is_noticed(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = attention_timing.run_once

    def one_bit_off(size, tuning, where, made=None):
        result = honest(size, tuning, where, made)
        if tuning.gathered:
            result.view(torch.int16)[1, 2, 7] ^= 1
        return result

    monkeypatch.setattr(attention_timing, "run_once", one_bit_off)
    results = attention_timing.check(TUNINGS[:2], SMALL, 150, 3, device.type)
    assert [same for _, same in results] == [True, False]

    def without_a_head(size, tuning, where, made=None):
        return honest(size, tuning, where, made).where(torch.arange(128, device=where) >= 32, 0)

    monkeypatch.setattr(attention_timing, "run_once", without_a_head)
    ((error, same),) = attention_timing.check(TUNINGS[:1], SMALL, 150, 3, device.type)
    assert error > 10 and not same
