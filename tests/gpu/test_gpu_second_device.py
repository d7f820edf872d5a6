"""A second GPU: the text is the first one's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ssd_lab import LLM, SamplingParams, demo

pytestmark = [
    pytest.mark.multi_gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason=f"needs 2 CUDA devices; {torch.cuda.device_count()} here"),
]
STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {}, "sync_chain": {}, "async_tree": {}, "sync_tree": {}, "eagle3": {"mode": "async"},
}  # fmt: skip


def texts(strategy: str, device: str, temperature: float, **fields: Any) -> list[list[int]]:
    pair = (str(demo.TARGET), None if strategy == "eagle3" else str(demo.DRAFT))
    options = {"max_batch": 4, "num_blocks": 2000, "progress": False, **STRATEGIES[strategy], **fields}
    params = [SamplingParams(max_tokens=48, ignore_eos=True, temperature=temperature, seed=i) for i in range(4)]
    with LLM(*pair, strategy, device=device, **options) as llm:
        result = llm.run([f"What is {n} + {n}?" for n in range(4)], params)
    assert "missing" not in result.trace.meta and result.trace.meta["device"] == device
    return [output.token_ids for output in result.outputs]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_text_is_that_of_the_first_device(strategy: str, eager: bool, temperature: float) -> None:
    first = texts(strategy, "cuda:0", temperature, eager=eager)
    assert texts(strategy, "cuda:1", temperature, eager=eager) == first
    assert torch.cuda.current_device() == 0


def test_two_devices_in_turn_in_one_process() -> None:
    """Neither's captures, events or streams end up on the other."""
    expected = texts("async_tree", "cuda:0", 0.0)
    options = {"max_batch": 4, "num_blocks": 2000, "progress": False}
    params = SamplingParams(max_tokens=48, ignore_eos=True)
    prompts = [f"What is {n} + {n}?" for n in range(4)]
    with (
        LLM(str(demo.TARGET), str(demo.DRAFT), "async_tree", device="cuda:1", **options) as second,
        LLM(str(demo.TARGET), str(demo.DRAFT), "async_tree", device="cuda:0", **options) as first,
    ):
        for _ in range(2):
            for llm in (first, second):
                assert [output.token_ids for output in llm.generate(prompts, params)] == expected
