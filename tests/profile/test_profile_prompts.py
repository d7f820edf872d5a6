"""Times of prompts, and transformers' model of the same weights beside ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ssd_lab import demo
from ssd_lab.models.inflate.geometry import GEOMETRIES
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_inflated, load_model
from ssd_lab.profile import prompts
from ssd_lab.profile.peer_prefill import inflated_peer
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair(tiny_pair) -> tuple[LoadedModel, LoadedModel]:
    target, draft = (load_model(one, dtype="float32", progress=False) for one in (tiny_pair.target, tiny_pair.draft))
    return target, draft


@pytest.mark.full
def test_prompts_and_whole_runs_are_measured(pair, monkeypatch: pytest.MonkeyPatch):
    for name, value in {
        "REPEATS": 1,
        "UNTIMED": 0,
        "TOGETHER": (3, 9),
        "OUTPUT": 12,
        "DECODING": 2,
        "BATCH": 4,
    }.items():
        monkeypatch.setattr(prompts, name, value)
    measured = prompts.measure_prompts(
        *pair,
        k=2,
        lengths=(20, 10**6),
        requests=6,
        peers={(1, 20): 0.5},
        progress=False,
        draft_link="inline",
        threads=1,
    )
    assert [(one.strategy, one.prompts, one.length, one.peer_s) for one in measured.prompts] == [
        (strategy, *each) for strategy in ("autoregressive", "sync_chain") for each in ((1, 20, 0.5), (3, 9, None))
    ]
    assert all(0 < one.whole <= one.rounds * 1.01 for one in measured.runs)
    assert all(one.usual_s > 0 and one.longest_s > 0 for one in measured.delays)
    text = prompts.markdown(measured)
    assert f"| autoregressive | 1 | 20 | {measured.prompts[0].seconds * 1e3:.1f} | 500.0 |" in text


@pytest.mark.full
def test_transformers_computes_the_same_function_on_the_same_weights():
    """An inflated model, made in memory on both sides; of tokens that the small model has. Larger than the small one in
    every direction, smaller than the published shape.
    """
    shape = GEOMETRIES["llama-1b"]
    sizes = {"num_layers": 7, "hidden_size": 1024, "num_heads": 16, "mlp_size": 4096, "vocab_size": 8000}
    short = replace(shape, config=replace(shape.config, **sizes))
    ours = load_inflated(short, demo.TARGET, dtype="float32", device="cpu")
    theirs = inflated_peer(short, demo.TARGET, torch.float32, torch.device("cpu"))
    ids = torch.randint(3, 1000, (1, 12), generator=torch.Generator().manual_seed(1))
    runner = StepRunner(ours.decoder, PagedKVCache(ours.config, 2, 16, ours.dtype, CPU), CPU)
    with torch.inference_mode():
        logits = runner.logits(causal_step_at(ids, [0], [[1]], 16))[0, -1]
        expected = theirs(ids, use_cache=True, logits_to_keep=1).logits[0, -1]
    known = logits > -1e20
    assert int(known.sum()) > 3000
    torch.testing.assert_close(logits[known], expected[known], atol=1e-3, rtol=0)
