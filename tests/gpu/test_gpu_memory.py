"""The memory plan against what the device says: before, during and after runs."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.errors import CacheCapacityError, ConfigError

pytestmark = pytest.mark.alone

MB, GB = 1 << 20, 1 << 30
LIBRARIES = 256 * MB  # work space that cuBLAS takes from torch's allocator, one for each stream
LASTING = ("target weights", "draft weights", "position tables", "KV blocks", "tree branches")
PAIRS: dict[str, dict[str, Any]] = {
    # a cache so large that the libraries' work space is little beside it
    "bundled": {"target": str(demo.TARGET), "draft": str(demo.DRAFT), "num_blocks": 100_000},
    "llama-1b": {
        "target": "inflated:llama-1b:bundled-target", "draft": "inflated:llama-1b:bundled-draft",
        "max_batch": 4, "max_model_len": 8192,
    },
}  # fmt: skip
GREEDY = SamplingParams(max_tokens=32, ignore_eos=True)
SAMPLED = SamplingParams(max_tokens=32, ignore_eos=True, temperature=1.0, top_p=0.9)


def free_bytes() -> int:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def in_hand() -> list[torch.Tensor]:
    """Tensors that fill what torch's allocator has in hand, in pieces down to 64 KB."""
    held: list[torch.Tensor] = []
    size = GB
    while size >= 1 << 16:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    return held


def made(pair: str, **fields: Any) -> LLM:
    return LLM(strategy="async_tree", device="cuda", progress=False, **{**PAIRS[pair], **fields})


def prompts(llm: LLM) -> list[str]:
    """As many as one batch holds."""
    return [f"What is {number} + {number}?" for number in range(llm.config.max_batch)]


@pytest.mark.parametrize("pair", PAIRS)
def test_what_lasts_is_what_was_planned(pair: str) -> None:
    """After a greedy run: weights, tables and KV blocks are all that is left on the device, within 10 %."""
    before = torch.cuda.memory_allocated()
    with made(pair) as llm:
        llm.generate(prompts(llm), GREEDY)
        torch.cuda.synchronize()
        lasting = torch.cuda.memory_allocated() - before
        planned = sum(llm.memory_plan.parts[part] for part in LASTING)
    assert 0.99 * planned <= lasting <= 1.1 * planned, f"{lasting / GB:.3f} GB, planned\n{llm.memory_plan}"


@pytest.mark.parametrize("pair", PAIRS)
def test_a_run_with_graphs_takes_no_more_than_was_planned(pair: str) -> None:
    """By the driver's count, after rounds of full batches that sampled, with all that graphs keep."""
    before = free_bytes()
    with made(pair) as llm:
        llm.generate(prompts(llm), GREEDY)
        llm.generate(prompts(llm), SAMPLED)
        taken, plan = before - free_bytes(), llm.memory_plan
    assert taken <= 1.1 * plan.used_bytes + LIBRARIES, f"{taken / GB:.3f} GB, planned\n{plan}"


@pytest.mark.parametrize("pair", PAIRS)
def test_the_dry_run_saw_the_largest_steps(pair: str) -> None:
    """Full batches that sample hold at most what was measured; and not a small part of it, or blocks were wasted."""
    with made(pair, eager=True) as llm:
        llm.generate(prompts(llm)[:1], GREEDY)  # the libraries' work space
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        llm.generate(prompts(llm), SAMPLED)
        torch.cuda.synchronize()
        held, measured = torch.cuda.max_memory_allocated() - before, llm.memory_plan.parts["workspace"]
    assert held <= 1.1 * measured + LIBRARIES, f"{held / MB:.0f} MB, measured {measured / MB:.0f}"
    assert held >= 0.2 * measured, f"{held / MB:.0f} MB, measured {measured / MB:.0f}"


def test_blocks_fill_what_is_free_and_a_long_context_is_cut_to_it() -> None:
    """Most of the device is taken by somebody else; the model's 131,072 positions do not fit into what is left."""
    pair = PAIRS["llama-1b"]
    taken = torch.empty(free_bytes() - 12 * GB, dtype=torch.uint8, device="cuda")
    with LLM(pair["target"], pair["draft"], "async_tree", device="cuda", progress=False, max_batch=8) as llm:
        plan = llm.memory_plan
        assert plan.notes and plan.max_model_len < 131_072
        assert plan.full_sequences >= 1
        assert torch.cuda.mem_get_info()[0] < 12 * GB - 0.9 * sum(plan.parts[part] for part in LASTING)
        llm.generate("What is 1 + 1?", GREEDY)
    del taken


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"target": "inflated:llama-70b:bundled-target", "dtype": "float32"}, ConfigError, "target weights"),
        ({"num_blocks": 50_000_000}, CacheCapacityError, "at most .* blocks fit"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_there(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = free_bytes()
    with pytest.raises(error, match=message):
        made("llama-1b", **fields)
    assert before - free_bytes() < 64 * MB


def test_running_out_of_memory_is_told_and_can_be_recovered_from() -> None:
    """The process is allowed no more than it has, and that is taken, so that the first large step fails."""
    total = torch.cuda.get_device_properties(0).total_memory
    with made("llama-1b", eager=True) as llm:
        first = llm.generate(prompts(llm)[:1], GREEDY)[0]
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2 * MB) / total)
        taken = in_hand()
        try:
            with pytest.raises(CacheCapacityError, match=r"out of memory while.*GB are free on cuda.*lower max_batch"):
                llm.generate(prompts(llm), SAMPLED)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            taken.clear()
        assert llm.num_free_blocks == llm.memory_plan.num_blocks - 1
        assert llm.generate(prompts(llm)[:1], GREEDY)[0].token_ids == first.token_ids
