"""Plans are made from names alone, then from a dry run; a device's memory is a number that a fake reader tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch

from ssd_lab import demo
from ssd_lab.assembly import draft_device
from ssd_lab.assembly.draft_device import TwoPlanners, planner_of
from ssd_lab.assembly.dry_run import LAYERS, DryRun
from ssd_lab.assembly.memory_plan import HOST_CACHE_SHARE, SHORT_TOKENS, USABLE_SHARE, MemoryPlan
from ssd_lab.assembly.planning import GRAPH_SHARE, GRAPH_WORKSPACES, MemoryPlanner
from ssd_lab.config import EngineConfig
from ssd_lab.errors import CacheCapacityError, ConfigError
from ssd_lab.execution.graphs import batch_bucket
from ssd_lab.models.block_decoder import BlockDecoder
from ssd_lab.models.eagle3.loader import load_eagle3
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.models.opened import shape_of
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.strategies.step_sizes import StepSizes

GB = 10**9
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
TARGET, DRAFT = "inflated:llama-8b:bundled-target", "inflated:llama-1b:bundled-draft"


@dataclass
class FakeReader:
    """So much is free, and every function holds so much."""

    free: int | None
    peak: int = 0
    ran: list[Callable[[], Any]] = field(default_factory=list)

    def free_bytes(self) -> int | None:
        return self.free

    def peak_of(self, function: Callable[[], Any]) -> int:
        self.ran.append(function)
        function()
        return self.peak


def planner(
    free: int | None, target: Any = TARGET, draft: Any = DRAFT, strategy: str = "async_tree", **fields: Any
) -> MemoryPlanner:
    knobs, device = fields.pop("knobs", {}), fields.pop("on", CUDA)
    config = EngineConfig(**{"dtype": "bfloat16", **fields})
    return MemoryPlanner(target, draft, registry.config(strategy, knobs), config, device, FakeReader(free))


def plan(free: int, target: Any = TARGET, draft: Any = DRAFT, **fields: Any) -> MemoryPlan:
    return planner(free, target, draft, **fields).before_loading()


@pytest.fixture(scope="module")
def bundled() -> tuple[LoadedModel, LoadedModel]:
    return load_model(demo.TARGET, dtype="float32"), load_model(demo.DRAFT, dtype="float32")


def test_drafts_on_another_gpu_are_planned_there(
    monkeypatch: pytest.MonkeyPatch, bundled: tuple[LoadedModel, LoadedModel]
) -> None:
    """Those that share one have an equal part each; a draft that lies elsewhere is not tried on the target's GPU."""
    monkeypatch.setattr(draft_device, "reader_of", lambda device: FakeReader(40 * GB))
    own, there = replace(planner(80 * GB, max_model_len=4096), device=torch.device("cuda", 0)), torch.device("cuda", 1)

    def draft_blocks(*drafts: torch.device) -> int:
        found = planner_of(own, drafts).before_loading()
        assert "draft weights" not in found.parts
        return found.num_blocks

    assert planner_of(own, []) is planner_of(own, [own.device]) is planner_of(own, [there, own.device]) is own
    room = planner(20 * GB, max_model_len=4096)
    alone = TwoPlanners(replace(room, reader=FakeReader(80 * GB)), there, FakeReader(20 * GB)).before_loading()
    assert draft_blocks(there, there) == alone.num_blocks <= draft_blocks(there)

    here = planner(80 * GB, *bundled, on=CPU)
    tried: list[str] = []
    monkeypatch.setattr(DryRun, "peak", lambda run, role, model, reader: tried.append(role) or 0)
    here.held_by_steps(600)
    replace(here, device=torch.device("meta")).held_by_steps(600)
    assert tried == ["target", "draft"]


def test_full_size_models_are_planned_without_being_made() -> None:
    found = plan(80 * GB, max_model_len=4096)
    assert found.parts["target weights"] == 2 * 8_030_261_248
    assert 2.4 * GB < found.parts["draft weights"] < 3 * GB
    assert found.num_blocks == 16 * -(-(4096 + 6) // 16) + 1
    assert found.used_bytes <= USABLE_SHARE * 80 * GB


def test_a_draft_on_a_device_of_its_own_takes_nothing_of_the_targets() -> None:
    """There are as many blocks as both have room for, and each device is refused for its own lack."""
    fields = {"max_model_len": 4096, "max_batch": 64}

    def both(free: int, theirs: int) -> MemoryPlan:
        own = planner(free, **fields)
        return TwoPlanners(own, torch.device("cuda", 1), FakeReader(theirs)).before_loading()

    together, apart = plan(80 * GB, **fields), both(80 * GB, 80 * GB)
    draft = apart.others["draft, cuda:1"]
    assert "draft weights" not in apart.parts and set(draft) >= {"draft weights", "KV blocks", "tree branches"}
    assert {**apart.parts, **draft}["position tables"] > 0 and "target weights" not in draft
    assert apart.num_blocks >= together.num_blocks
    assert apart.parts["target weights"] == together.parts["target weights"]
    assert draft["draft weights"] == together.parts["draft weights"]
    small = both(80 * GB, 6 * GB)
    assert small.num_blocks < apart.num_blocks and small.max_model_len == 4096
    for parts in (small.parts, small.others["draft, cuda:1"]):
        assert parts["KV blocks"] > 0 and parts["KV blocks"] % small.num_blocks == 0
    assert sum(small.others["draft, cuda:1"].values()) <= USABLE_SHARE * 6 * GB
    with pytest.raises(ConfigError, match=r"^draft weights .* do not fit into 2\.00 GB"):
        both(80 * GB, 2 * GB)
    with pytest.raises(ConfigError, match=r"^target weights .* do not fit into 12\.00 GB"):
        both(12 * GB, 80 * GB)


def test_what_does_not_fit_is_refused_before_loading_and_following_the_advice_helps() -> None:
    with pytest.raises(ConfigError, match=r"target weights 16\.06 GB.*do not fit into 12\.00 GB.*GB are missing"):
        plan(12 * GB)
    with pytest.raises(CacheCapacityError, match=r"lower max_model_len \(at most") as caught:
        plan(40 * GB, max_model_len=131_072)
    length = int(str(caught.value).split("at most ")[1].split(" ")[0].replace(",", ""))
    assert plan(40 * GB, max_model_len=length).full_sequences >= 1


@pytest.mark.parametrize("free", [30 * GB, 40 * GB])
def test_a_length_that_nobody_chose_is_cut_with_a_note(free: int) -> None:
    found = plan(free, strategy="sync_chain")
    length = found.max_model_len
    assert SHORT_TOKENS < length < 131_072
    per_short = -(-(SHORT_TOKENS + 6) // 16)
    assert found.num_blocks >= 1 + found.cache.blocks_per_sequence + 15 * per_short
    assert f"max_model_len is {length:,}" in str(found) and found.as_dict()["notes"]
    with pytest.raises(CacheCapacityError):  # chosen, the same length as the model's is an error
        plan(free, strategy="sync_chain", max_model_len=131_072)


def test_a_length_that_fits_is_not_cut_and_blocks_that_were_asked_for_are_kept() -> None:
    assert plan(80 * GB).max_model_len == 131_072 and not plan(80 * GB).notes
    asked = plan(40 * GB, num_blocks=300)
    assert (asked.num_blocks, asked.max_model_len, asked.notes) == (300, 131_072, ())


def test_models_that_are_loaded_already_do_not_count_twice(bundled: tuple[LoadedModel, LoadedModel]) -> None:
    target, draft = bundled
    names = plan(8 * GB, str(demo.TARGET), str(demo.DRAFT), dtype="float32")
    on_device = sum(names.parts[part] for part in ("target weights", "draft weights", "position tables"))
    assert plan(8 * GB - on_device, target, draft).parts == names.parts


@pytest.mark.quick("knobs1-8")
@pytest.mark.parametrize(
    ("knobs", "branches"),
    [({"k": 3}, 0), ({"mode": "async", "k": 3, "f": 2}, 8), ({"tree": {"kind": "fixed", "widths": (3, 2)}}, 0)],
)
def test_an_eagle_head_has_its_share(
    bundled: tuple[LoadedModel, LoadedModel], knobs: dict[str, Any], branches: int
) -> None:
    target, _ = bundled
    head = load_eagle3(demo.EAGLE3, target)
    own = sum(linear.bytes for linear in head.linears())
    options = {"strategy": "eagle3", "dtype": "float32", "max_model_len": 512, "max_batch": 2, "knobs": knobs}
    names = plan(8 * GB, str(demo.TARGET), None, **options)
    assert own <= names.parts["draft weights"] <= 1.01 * own  # norms are in it too
    found = planner(8 * GB, str(demo.TARGET), None, **options)
    one_layer = 16 * 2 * target.config.num_kv_heads * target.config.head_dim * 4
    assert found.cache.block_bytes == (target.config.num_layers + 1) * one_layer
    held = planner(8 * GB, target, None, on=CPU, **options, kernels="torch").held_by_steps(512)
    assert held > 2 * 3 * target.config.vocab_size * 4  # a head's logits, though the reader saw nothing
    assert names.parts["tree branches"] == 2 * -(-branches * 3 // 16) * one_layer
    # the head is not on the device yet
    on_device = names.parts["target weights"] + target.config.max_positions * (target.config.head_dim * 2 * 4)
    assert plan(8 * GB - on_device, target, None, **options).parts == names.parts


@pytest.mark.parametrize("max_batch", [1, 3, 16, 20])
def test_steps_are_planned_for_the_rows_that_graphs_compute(max_batch: int) -> None:
    options = {"max_batch": max_batch, "max_model_len": 2048, "knobs": {"k": 5, "f": 2}}
    found, eager = planner(80 * GB, **options), planner(80 * GB, **options, eager=True)
    assert (found.rows, eager.rows) == (batch_bucket(max_batch), max_batch)
    blocks = found.rows * -(-12 * 5 // 16)  # scratch blocks of the branches
    draft_block = PagedKVCache.bytes_per_block(found.shapes["draft"].config, 16, torch.bfloat16)
    assert found.lasting["tree branches"] == blocks * draft_block
    assert (found.graphs, eager.graphs) == (True, False)


def test_strategies_say_how_large_their_steps_are() -> None:
    def sizes(strategy: str | StrategyConfig, **knobs: Any) -> StepSizes:
        return registry.config(strategy, knobs).step_sizes

    assert sizes("autoregressive") == StepSizes(0)
    assert sizes("prompt_lookup", k=7) == StepSizes(7)
    assert sizes("sync_chain", k=4) == StepSizes(4, chain=4) == sizes("eagle3", k=4)
    tree = sizes("async_tree", k=2, fan_out={"kind": "explicit", "hit": [5, 2, 1], "miss": [1, 1, 6]})
    assert tree == StepSizes(2, chain=2, branches=8, depth=2)
    assert sizes("eagle3", mode="async", k=2, f=2) == sizes("async_tree", k=2, f=2)
    assert (tree.draft_rows, tree.scratch_positions, tree.kept_distributions) == (8, 16, 16)
    assert tree.joined(StepSizes(7, chain=1)) == StepSizes(7, chain=2, branches=8, depth=2)


class TestMeasured:
    """What lasts is known by shapes, what steps hold is seen in a dry run."""

    options: ClassVar = {"max_batch": 2, "max_model_len": 600, "kernels": "torch", "dtype": "float32"}

    def planner(
        self,
        bundled: tuple[LoadedModel, LoadedModel],
        strategy: str = "sync_chain",
        on: torch.device = CUDA,
        **knobs: Any,
    ) -> MemoryPlanner:
        return planner(4 * GB, *bundled, strategy=strategy, knobs=knobs, on=on, **self.options)

    def test_the_workspace_is_what_was_seen(
        self, bundled: tuple[LoadedModel, LoadedModel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trying = self.planner(bundled, "async_tree", CPU, k=2, f=1)
        assert replace(trying, reader=FakeReader(4 * GB, peak=123_456_789)).held_by_steps(600) == 2 * 123_456_789
        monkeypatch.setattr(MemoryPlanner, "held_by_steps", lambda self, longest: 2 * 123_456_789)
        found = self.planner(bundled, "async_tree", k=2, f=1).once_loaded()
        assert found.parts["workspace"] == 2 * 123_456_789
        assert found.parts["graphs"] == int(GRAPH_WORKSPACES * 2 * 123_456_789 + GRAPH_SHARE * found.free_bytes)

    def test_what_only_the_steps_make_too_much_is_refused_once_they_were_tried(
        self, bundled: tuple[LoadedModel, LoadedModel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MemoryPlanner, "held_by_steps", lambda self, longest: 3 * GB)
        assert self.planner(bundled).before_loading()
        with pytest.raises(ConfigError, match=r"workspace 3\.00 GB, graphs .*are missing; lower max_batch"):
            self.planner(bundled).once_loaded()

    def test_the_largest_steps_are_tried_at_every_context(
        self, bundled: tuple[LoadedModel, LoadedModel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: dict[str, set[tuple[int, int, int]]] = {"target": set(), "draft": set()}
        roles = {id(model.decoder.embedding): role for role, model in zip(seen, bundled, strict=True)}
        plain = BlockDecoder.forward

        def spy(decoder: BlockDecoder, step: Any, cache: Any, **given: Any) -> Any:
            seen[roles[id(decoder.embedding)]].add((*step.token_ids.shape, step.context_length))
            assert decoder.config.num_layers == LAYERS, "all layers hold what two hold"
            return plain(decoder, step, cache, **given)

        monkeypatch.setattr(BlockDecoder, "forward", spy)
        monkeypatch.setattr(MemoryPlanner, "graphs", True)
        self.planner(bundled, "async_tree", CPU, k=2, f=3).held_by_steps(600)
        # 602 positions: planned for as 512, then as 1024; prompts are computed as they are
        assert {(2, 3, 512), (2, 3, 1024), (1, 128, 512), (1, 128, 602)} <= seen["target"]
        assert {rows for _, rows, _ in seen["draft"]} == {1, 2, 3, 9, 64, 128}
        assert max(context for _, rows, context in seen["draft"] if rows == 9) >= 1024 + 9

    def test_contexts_are_tried_by_powers_of_two_up_to_the_one_that_the_longest_is_planned_for(self) -> None:
        dry_run = DryRun(StepSizes(4), batch=1, longest=3000, block_size=16, device=CPU)
        assert dry_run.contexts == [512, 1024, 2048, 3000]
        assert replace(dry_run, graphs=True).contexts == [512, 1024, 2048, 4096]
        assert replace(dry_run, longest=300).contexts == [300]

    def test_kernels_that_cannot_be_captured_need_no_memory_for_graphs(
        self, bundled: tuple[LoadedModel, LoadedModel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MemoryPlanner, "held_by_steps", lambda self, longest: 0)
        assert self.planner(bundled).once_loaded().parts["graphs"] > 0
        monkeypatch.setattr(type(bundled[0].decoder.kernels), "captures", False)
        assert self.planner(bundled).once_loaded().parts["graphs"] == 0

    def test_a_step_that_does_not_fit_is_named(self, bundled: tuple[LoadedModel, LoadedModel]) -> None:
        class Full(FakeReader):
            def peak_of(self, function: Callable[[], Any]) -> int:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        with pytest.raises(ConfigError, match=r"trying the target's largest steps.*lower max_batch"):
            replace(self.planner(bundled, on=CPU), reader=Full(4 * GB)).held_by_steps(600)


class TestOnACpu:
    """The plan is for reading: nothing is refused, and blocks follow the old rule."""

    def blocks(self, model: LoadedModel, free: int | None, **fields: Any) -> MemoryPlan:
        return planner(free, model, None, "autoregressive", on=CPU, dtype="auto", **fields).once_loaded()

    def test_blocks_take_a_share_at_most(self, bundled: tuple[LoadedModel, LoadedModel]) -> None:
        target, _ = bundled
        block = 6 * 16 * 2 * 2 * 64 * 4
        assert self.blocks(target, 64 * GB).num_blocks == 16 * 64 + 1
        assert self.blocks(target, 400 * block).num_blocks == int(400 * HOST_CACHE_SHARE)
        assert self.blocks(target, 1).num_blocks == 2
        assert self.blocks(target, 1, num_blocks=50).num_blocks == 50

    def test_where_the_system_does_not_tell_all_that_is_wanted_is_taken(
        self, bundled: tuple[LoadedModel, LoadedModel]
    ) -> None:
        found = self.blocks(bundled[0], None)
        assert found.num_blocks == 16 * 64 + 1 and "left free" not in str(found)


def test_an_llm_keeps_its_plan_and_its_trace_holds_it(tiny_pair: Any) -> None:
    import ssd_lab

    with ssd_lab.LLM(
        tiny_pair.target, tiny_pair.draft, "async_tree", dtype="float32", draft_link="inline", progress=False
    ) as llm:
        block_bytes = PagedKVCache.bytes_per_block(llm.target.config, 16, torch.float32)
        assert llm.kv_bytes == llm.memory_plan.num_blocks * block_bytes
        trace = llm.run("hi", ssd_lab.SamplingParams(max_tokens=4)).trace
    assert trace.meta["memory"] == llm.memory_plan.as_dict()


@pytest.mark.parametrize("source", [TARGET, DRAFT, str(demo.TARGET)])
def test_a_shape_needs_no_weights(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd_lab.models.files.weights.SafetensorsWeights.read", None)
    shape = shape_of(source, dtype="auto", device=CUDA)
    assert shape.dtype == torch.bfloat16 and shape.config.num_parameters > 0
