"""Memory is shared out as it will be used, and what does not fit is refused with something that does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ssd_lab import demo
from ssd_lab.assembly.memory_plan import USABLE_SHARE, MemoryRequest, alternatives, plan_memory
from ssd_lab.assembly.model_demand import ModelDemand
from ssd_lab.errors import CacheCapacityError, ConfigError
from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.models.inflate.geometry import find_geometry
from ssd_lab.models.kv_cache import PagedKVCache

GB = 10**9


def demand(name: str, dtype: torch.dtype = torch.bfloat16, **fields: Any) -> ModelDemand:
    return ModelDemand(find_geometry(name).config, dtype, **{"rows": 512, "logit_rows": 128, **fields})


def request(**fields: Any) -> MemoryRequest:
    defaults: dict[str, Any] = {
        "free_bytes": 80 * GB, "target": demand("llama-8b", splits=16),
        "draft": demand("llama-1b", rows=384, logit_rows=384, scratch_positions=21 * 6), "block_size": 16,
        "max_model_len": 8192, "max_batch": 16, "lookahead": 7, "graph_bytes": GB,
    }  # fmt: skip
    return MemoryRequest(**{**defaults, **fields})


def test_weights_and_blocks_are_what_a_model_and_its_cache_really_take() -> None:
    bundled = open_checkpoint(demo.TARGET)
    stored = sum(bundled.weights.read(name).nbytes for name in bundled.weights.names())
    model = ModelDemand(bundled.config, torch.bfloat16, rows=1, logit_rows=1)
    assert model.weight_bytes == stored
    assert model.block_bytes(16) * 5 == PagedKVCache(bundled.config, 5, 16, torch.bfloat16, "cpu").bytes


def test_the_parts_add_up_and_stay_within_the_usable_memory() -> None:
    plan = plan_memory(request())
    assert plan.parts["target weights"] == 2 * 8_030_261_248
    assert plan.num_blocks == 16 * 513 + 1  # (8192 + 7) / 16, and the block of padding rows
    assert plan.parts["KV blocks"] == plan.num_blocks * plan.block_bytes
    assert plan.used_bytes == sum(plan.parts.values()) <= USABLE_SHARE * 80 * GB
    assert plan.full_sequences == 16
    shown = str(plan)
    for words in ("target weights", "16.061 GB", "8,209 of 16 tokens: 16.0 sequences of 8,192", "left free"):
        assert words in shown


def test_blocks_get_what_is_left_where_not_all_sequences_fit() -> None:
    plan = plan_memory(request(free_bytes=36 * GB))
    assert 514 <= plan.num_blocks < request().wanted_blocks
    assert plan.used_bytes <= USABLE_SHARE * 36 * GB < plan.used_bytes + plan.block_bytes
    assert plan_memory(request(free_bytes=36 * GB, draft=None)).num_blocks > plan.num_blocks


def test_a_wider_tree_and_more_rows_take_blocks_away() -> None:
    few = plan_memory(request(free_bytes=36 * GB)).num_blocks
    tree = demand("llama-1b", rows=384, logit_rows=384, scratch_positions=63 * 6)
    assert plan_memory(request(free_bytes=36 * GB, draft=tree)).num_blocks < few
    assert plan_memory(request(free_bytes=36 * GB, target=demand("llama-8b", rows=4096, splits=16))).num_blocks < few
    assert plan_memory(request(free_bytes=36 * GB, target=demand("llama-8b", splits=64))).num_blocks < few


TOO_LARGE = {
    "blocks asked for": (request(free_bytes=30 * GB, num_blocks=20_000), CacheCapacityError, "at most .* blocks fit"),
    "one long sequence": (
        request(free_bytes=30 * GB, max_model_len=131_072, draft=None), CacheCapacityError,
        "one sequence of 131,072 tokens",
    ),
    "weights in float32": (
        request(target=demand("llama-8b", torch.float32), free_bytes=35 * GB), ConfigError, "target weights 32.12 GB",
    ),
    "a batch too large": (
        request(free_bytes=24 * GB, max_batch=512, target=demand("llama-8b", rows=4096, logit_rows=4096)),
        ConfigError, "workspace",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "error", "message"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_does_not_fit_is_refused_with_what_does(
    wrong: MemoryRequest, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        plan_memory(wrong)
    offers = alternatives(wrong)
    assert offers
    for field, value in offers:
        assert f"{field}={str(value).removeprefix('torch.')}" in str(caught.value)


def test_following_the_advice_works_and_asking_for_a_little_more_does_not() -> None:
    blocks = request(free_bytes=30 * GB, num_blocks=20_000)
    (field, value), *_ = alternatives(blocks)
    assert field == "num_blocks" and plan_memory(replace(blocks, num_blocks=value)).num_blocks == value
    with pytest.raises(CacheCapacityError):
        plan_memory(replace(blocks, num_blocks=value + 1))
    long = request(free_bytes=30 * GB, max_model_len=131_072, draft=None)
    (field, value), *_ = alternatives(long)
    assert field == "max_model_len" and plan_memory(replace(long, max_model_len=value)).full_sequences >= 1
    with pytest.raises(CacheCapacityError):
        plan_memory(replace(long, max_model_len=value + 1))


def test_where_nothing_helps_it_says_so() -> None:
    with pytest.raises(ConfigError, match="take smaller models or a larger device"):
        plan_memory(request(target=demand("llama-70b"), draft=None, free_bytes=80 * GB))
