"""Memory is shared out as it will be used; what does not fit is refused with what is missing and what would help."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from ssd_lab import demo
from ssd_lab.assembly.memory_plan import SHORT_TOKENS, USABLE_SHARE, CacheRequest, MemoryPlan, plan_memory
from ssd_lab.assembly.memory_reader import HostMemoryReader
from ssd_lab.assembly.planning import MemoryPlanner
from ssd_lab.config import EngineConfig
from ssd_lab.errors import CacheCapacityError, ConfigError
from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.models.inflate.geometry import find_geometry
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.strategies import registry

GB = 10**9


LARGE, SMALL = find_geometry("llama-8b").config, find_geometry("llama-1b").config
BLOCK, DRAFT_BLOCK = (PagedKVCache.bytes_per_block(config, 16, torch.bfloat16) for config in (LARGE, SMALL))
PARTS = {
    "target weights": 2 * LARGE.num_parameters, "draft weights": 2 * SMALL.num_parameters, "workspace": 3 * GB,
    "graphs": GB,
}  # fmt: skip


def cache(**fields: Any) -> CacheRequest:
    defaults: dict[str, Any] = {
        "block_bytes": BLOCK + DRAFT_BLOCK, "block_size": 16, "max_model_len": 8192, "max_batch": 16,
        "reserved": 7,
    }  # fmt: skip
    return CacheRequest(**{**defaults, **fields})


def plan(free_bytes: int, parts: dict[str, int] = PARTS, **fields: Any) -> MemoryPlan:
    return plan_memory(parts, cache(**fields), free_bytes)


def test_weights_and_blocks_are_what_a_model_and_its_cache_really_take() -> None:
    bundled = open_checkpoint(demo.TARGET)
    stored = sum(bundled.weights.read(name).nbytes for name in bundled.weights.names())
    config, strategy = EngineConfig(dtype="bfloat16", block_size=16), registry.config("autoregressive", {})
    planner = MemoryPlanner(str(demo.TARGET), None, strategy, config, torch.device("cpu"), HostMemoryReader())
    assert planner.lasting["target weights"] == stored
    assert planner.cache.block_bytes * 5 == PagedKVCache(bundled.config, 5, 16, torch.bfloat16, "cpu").bytes


def test_the_parts_add_up_and_stay_within_the_usable_memory() -> None:
    found = plan(80 * GB)
    assert found.parts["target weights"] == 2 * 8_030_261_248
    assert found.num_blocks == 16 * 513 + 1  # (8192 + 7) / 16, and the block of padding rows
    assert found.parts["KV blocks"] == found.num_blocks * cache().block_bytes
    assert found.used_bytes == sum(found.parts.values()) <= USABLE_SHARE * 80 * GB
    assert found.full_sequences == 16
    shown = str(found)
    for words in ("target weights", "16.061 GB", "8,209 of 16 tokens: 16.0 sequences of 8,192", "left free"):
        assert words in shown


def test_blocks_get_what_is_left_where_not_all_sequences_fit() -> None:
    found = plan(36 * GB)
    assert 514 <= found.num_blocks < cache().wanted_blocks
    assert found.used_bytes <= USABLE_SHARE * 36 * GB < found.used_bytes + cache().block_bytes
    assert plan(36 * GB, block_bytes=BLOCK).num_blocks > found.num_blocks
    assert plan(36 * GB, PARTS | {"workspace": 4 * GB}).num_blocks < found.num_blocks


TOO_LARGE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "blocks asked for": (
        {"free_bytes": 30 * GB, "num_blocks": 20_000}, CacheCapacityError, "lower num_blocks .at most .* blocks fit",
    ),
    "one long sequence": (
        {"free_bytes": 30 * GB, "max_model_len": 131_072}, CacheCapacityError,
        "one sequence of 131,072 tokens 21.48 GB do not fit.*lower max_model_len",
    ),
    "weights in float32": (
        {"free_bytes": 33 * GB, "parts": {"target weights": 4 * LARGE.num_parameters}},
        ConfigError, "target weights 32.12 GB.*of float32",
    ),
    "a batch too large": (
        {"free_bytes": 24 * GB, "parts": PARTS | {"workspace": 30 * GB}}, ConfigError, "workspace.*lower max_batch",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "error", "message"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_does_not_fit_is_refused_and_what_is_missing_is_enough(
    wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        plan(**wrong)
    missing = re.search(r"([\d.]+) GB are missing", str(caught.value))
    assert missing is not None and float(missing[1]) > 0.1
    rounding = GB // 50
    more = float(missing[1]) * GB / USABLE_SHARE
    blocks = 0 if error is CacheCapacityError else 514 * cache().block_bytes  # of one sequence, which comes next
    assert plan(**wrong | {"free_bytes": int(wrong["free_bytes"] + more + blocks / USABLE_SHARE) + rounding})
    with pytest.raises(error):
        plan(**wrong | {"free_bytes": int(wrong["free_bytes"] + more) - rounding})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("num_blocks", 20_000, r"at most ([\d,]+) blocks"), ("max_model_len", 131_072, r"at most ([\d,]+) fit")],
)
def test_the_most_that_fits_is_said_and_does_and_a_little_more_does_not(field: str, value: int, words: str) -> None:
    with pytest.raises(CacheCapacityError, match=words) as caught:
        plan(30 * GB, **{field: value})
    said = re.search(words, str(caught.value))
    assert said is not None
    most = int(said[1].replace(",", ""))
    assert plan(30 * GB, **{field: most}).num_blocks >= 2
    with pytest.raises(CacheCapacityError):
        plan(30 * GB, **{field: most + 1})


def test_a_length_that_nobody_chose_is_cut_so_that_short_sequences_fit_beside_it() -> None:
    found = plan(30 * GB, max_model_len=131_072, may_cut=True)
    assert SHORT_TOKENS < found.max_model_len < 131_072 and found.full_sequences >= 1
    assert found.num_blocks >= 1 + found.cache.blocks_per_sequence + 15 * found.cache.blocks_for(SHORT_TOKENS)
    assert f"max_model_len is {found.max_model_len:,}" in str(found) and found.as_dict()["notes"]
    with pytest.raises(CacheCapacityError, match="one sequence of 1,024 tokens"):
        plan(int((sum(PARTS.values()) + 10 * cache().block_bytes) / USABLE_SHARE), max_model_len=131_072, may_cut=True)
