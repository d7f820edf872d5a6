"""Sampling settings that vanish or overflow in float32 give the distribution of their definition in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_decoding_sampling import slow_distribution

from ssd_lab.config import SamplingParams
from ssd_lab.decoding.branches import draft_confidence
from ssd_lab.decoding.sampling import COLDEST, SamplingBatch, in_float32, target_distribution

TINY = (1e-300, 1e-46, 1e-45, 1e-40, 1e-38, 1e-30)


def random_logits(scale: float) -> torch.Tensor:
    return torch.randn(60, generator=torch.Generator().manual_seed(7)) * scale


LOGITS = {
    "usual": random_logits(3.0),
    "large": random_logits(3e4),
    "tiny": random_logits(1e-6),
    "ties": torch.tensor([2.0, 5.0, 5.0, 1.0, 5.0, -3.0]),
    "padded": torch.cat([random_logits(2.0), torch.full((4,), -1e30)]),
    "impossible tokens": torch.cat([random_logits(2.0), torch.full((4,), -math.inf)]),
}
SETTINGS = {
    "cold": [(temperature, 0, 1.0, 0.0) for temperature in TINY],
    "cool": [(1e-8, 0, 1.0, 0.0), (1e-3, 0, 1.0, 0.0)],
    "hot": [(10.0, 0, 1.0, 0.0), (10.0, 5, 0.5, 0.01)],
    "narrow": [(1.0, 0, top_p, 0.0) for top_p in (*TINY, 1e-8)],
    "nearly all": [(1.0, 0, 1 - 1e-9, 0.0), (1.0, 0, 1 - 2**-53, 0.0), (2.0, 0, 0.9999999, 0.0)],
    "nearly the best": [(1.0, 0, 1.0, 1.0), (1.0, 0, 1.0, 1 - 1e-9), (1.0, 0, 1.0, 1 - 1e-7)],
    "no bound": [(1.0, 0, 1.0, 1e-300), (1.0, 0, 1.0, 1e-46), (1.0, 10**6, 1.0, 0.0)],
    "cold and narrow": [(1e-46, 1, 1e-46, 1.0), (1e-45, 2, 1e-45, 0.5), (1e-30, 0, 0.5, 0.1)],
}


@pytest.mark.filterwarnings("ignore:overflow")  # of the definition: a gap divided by such a temperature
@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("name", SETTINGS)
def test_extreme_settings_match_their_definitions(name: str, kind: str) -> None:
    logits = LOGITS[kind]
    if (name, kind) == ("hot", "tiny"):
        pytest.skip("all tokens are equally likely in float32: which of them a filter keeps is nobody's promise")
    for temperature, top_k, top_p, min_p in SETTINGS[name]:
        ours = target_distribution(
            logits[None, None], SamplingBatch.from_rows([(temperature, top_k, top_p, min_p, 0)])
        )[0, 0]
        expected = slow_distribution(logits.double().numpy(), temperature, top_k, top_p, min_p)
        np.testing.assert_allclose(ours.numpy(), expected, atol=2e-5, err_msg=f"{temperature, top_k, top_p, min_p}")


def test_no_temperature_above_zero_is_zero_in_float32() -> None:
    for temperature in TINY:
        assert np.float32(in_float32(temperature)) >= COLDEST > 0
    assert (in_float32(0.0), in_float32(0.7)) == (0.0, 0.7)


@pytest.mark.parametrize("temperature", [*(in_float32(tiny) for tiny in TINY), 1e-10, 0.3])
def test_a_drafts_opinion_of_itself_is_a_number_at_every_temperature(temperature: float) -> None:
    logits = torch.randn(1, 3, 12, generator=torch.Generator().manual_seed(1)) * 30
    drafted, candidates = logits.argmax(-1)[:, :2], logits.topk(3, -1).indices
    confidences, chances = draft_confidence(logits, drafted, candidates, torch.tensor([temperature]))
    assert confidences.isfinite().all() and chances.isfinite().all()
    expected = torch.softmax(logits.double() / max(temperature, 1e-30), -1)[:, :2].gather(-1, drafted.unsqueeze(-1))
    torch.testing.assert_close(confidences.double(), expected.squeeze(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("field", ["temperature", "top_p", "min_p"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-300])
def test_what_is_no_setting_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        SamplingParams(**{field: value})
