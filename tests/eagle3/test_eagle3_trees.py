"""Token trees of a head: what the head's definition says, whatever memory does, and the text is the target's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from eagle3_cases import PROMPTS, TREES, autoregressive, eagle, params
from eagle3_checkpoints import head_tensors, write_safeailab
from eagle3_twin import Twin
from power import found_wrong
from replay_graphs import Backends

from ssd_lab import SamplingParams, demo, run
from ssd_lab.check import Extent, check
from ssd_lab.check.checking import CheckReport
from ssd_lab.drafting.eagle3.proposer import EagleProposer
from ssd_lab.errors import ConfigError
from ssd_lab.models.eagle3.loader import load_eagle3
from ssd_lab.models.loader import LoadedModel
from ssd_lab.phases import grow_dynamic_tree, verify_tree
from ssd_lab.phases.head_reading import HeadReading

LENGTH = 18
SAMPLED = 0.8


@pytest.fixture(scope="module")
def expected(counting: Any) -> list[list[int]]:
    return autoregressive(counting.target, length=LENGTH)


@pytest.mark.quick("dynamic-part-4")
@pytest.mark.grid(full=3)
@pytest.mark.parametrize(
    ("head", "batch"), [*(pytest.param(head, 1, marks=pytest.mark.full) for head in ("whole", "part")), ("part", 4)]
)
@pytest.mark.parametrize("tree", TREES)
def test_greedy_text_is_the_targets_and_every_node_is_the_heads(
    counting: Any, expected: list[list[int]], tree: str, batch: int, head: str
) -> None:
    folder = getattr(counting, head)
    with eagle(counting.target, folder, tree, max_batch=batch) as llm:
        result = llm.run(PROMPTS, params(length=LENGTH))
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    assert [output.token_ids for output in result.outputs] == expected
    counts = counting.twin(folder).check(result, 0.0)
    assert set(counts) == {"tree", "none"} and counts["none"] == 1  # none: the prompt of one token
    assert result.metrics.tokens_per_round > 1.7


def test_a_tree_keeps_more_than_a_chain_of_its_depth(counting: Any) -> None:
    kept = []
    for fields in ({"k": 3}, {"tree": {"kind": "fixed", "widths": (3, 2, 1)}}):
        with eagle(counting.target, counting.whole, "sync", **{"k": 5, **fields}) as llm:
            kept.append(llm.run(PROMPTS, params()).metrics.tokens_per_round)
    assert kept[1] > kept[0] + 0.1


@pytest.mark.full
@pytest.mark.parametrize("draws", ["without_replacement", "top"])
def test_sampled_nodes_have_the_heads_probabilities_in_every_batch(counting: Any, draws: str) -> None:
    texts = []
    for batch in (1, 4):
        with eagle(counting.target, counting.part, "widths", draws=draws, max_batch=batch, block_size=4) as llm:
            result = llm.run(PROMPTS, params(SAMPLED, length=LENGTH))
        texts.append([output.token_ids for output in result.outputs])
        counts = counting.twin(counting.part).check(result, SAMPLED, drawn=draws == "without_replacement")
        assert counts["tree"] > 20
    assert texts[0] == texts[1]


def test_certain_guesses_leave_a_seeds_sampled_text_alone(counting: Any) -> None:
    from ssd_lab import LLM

    one = params(1.0, length=LENGTH, top_p=0.9)
    with LLM(counting.target, None, "autoregressive", progress=False, threads=1, num_blocks=400) as llm:
        plain = [output.token_ids for output in llm.generate(PROMPTS, one)]
    with eagle(counting.target, counting.part, "dynamic", max_batch=3) as llm:
        assert [output.token_ids for output in llm.generate(PROMPTS, one)] == plain


LIMITS: dict[str, dict[str, Any]] = {
    "preemption": {"num_blocks": 28, "block_size": 4},
    "blocks of one": {"block_size": 1},
    "chunked prefill": {"max_prefill_tokens": 3, "block_size": 4},
}


@pytest.mark.quick(full=["widths-preemption"])
@pytest.mark.grid(full=5)
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("tree", ["widths", "dynamic"])
def test_whatever_memory_does_nodes_are_the_heads(
    counting: Any, expected: list[list[int]], tree: str, limits: str
) -> None:
    with eagle(counting.target, counting.part, tree, max_batch=6, **LIMITS[limits]) as llm:
        for _ in range(2):  # the second time with prefixes to be found
            result = llm.run(PROMPTS, params(length=LENGTH))
            assert [output.token_ids for output in result.outputs] == expected
            counting.twin(counting.part).check(result, 0.0)
        assert llm.num_free_blocks == llm._engine._blocks.num_usable


@pytest.mark.full
@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize("family", ["target", "qwen_target"])
@pytest.mark.parametrize("tree", ["widths", pytest.param("dynamic", marks=pytest.mark.full)])
def test_any_family_of_targets(request: pytest.FixtureRequest, tmp_path: Path, tree: str, family: str) -> None:
    target: LoadedModel = request.getfixturevalue(family)
    head = str(write_safeailab(tmp_path, head_tensors()))
    plain = autoregressive(target, length=10)
    for batch in (1, 4):
        with eagle(target, head, tree, max_batch=batch) as llm:
            result = llm.run(PROMPTS, params(length=10))
        assert [output.token_ids for output in result.outputs] == plain
        Twin(target, load_eagle3(head, target)).check(result, 0.0)


@pytest.mark.full
@pytest.mark.skipif(not demo.EAGLE3.is_dir(), reason="no head is bundled")
@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.full), 4])
def test_the_bundled_head_grows_trees_for_the_bundled_target(batch: int) -> None:
    options: dict[str, Any] = {"max_tokens": 32, "progress": False, "threads": 1, "dtype": "float32"}
    prompts = demo.canned_prompts()[:4]
    plain = run(prompts, strategy="autoregressive", **options)
    for tree in (TREES["widths"]["tree"], {"kind": "dynamic", "top_k": 4, "depth": 5, "num_nodes": 16}):
        drafted = run(prompts, strategy="eagle3", tree=tree, max_batch=batch, **options)
        assert [o.token_ids for o in drafted.outputs] == [o.token_ids for o in plain.outputs]
        assert drafted.metrics.tokens_per_round > 2.5
    torch.set_num_threads(1)


@pytest.mark.full
@pytest.mark.parametrize(("tree", "temperature"), [("widths", 0.0), ("widths", SAMPLED), ("dynamic", 0.0)])
def test_graphs_give_the_eager_text(
    counting: Any, monkeypatch: pytest.MonkeyPatch, tree: str, temperature: float
) -> None:
    def drafted() -> Any:
        with eagle(counting.target, counting.part, tree, max_batch=3) as llm:
            return llm.run(PROMPTS, params(temperature, length=LENGTH, top_p=0.9))

    plain = drafted()
    own = Backends.installed(monkeypatch)
    graphed = drafted()
    assert [o.token_ids for o in graphed.outputs] == [o.token_ids for o in plain.outputs]
    assert graphed.metrics.tokens_per_round == plain.metrics.tokens_per_round
    captured = [backend.captured for _, backend in own.made]
    assert len(captured) == 2 and min(captured) > 0  # the target's executor and the head's


def of_the_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: features of the first nodes in place of those of the accepted path."""
    original = verify_tree.launch_verify_tree

    def launch(runner: Any, rows: Any, bounds: Any, proposal: Any, tree: Any, options: Any) -> Any:
        taken: list[torch.Tensor] = []
        forward = runner.decoder.forward

        def spy(step: Any, cache: Any, *, features: Any = None) -> torch.Tensor:
            out = forward(step, cache, features=features)
            taken.append(torch.cat([features[layer] for layer in options.feature_layers], -1))
            return out

        runner.decoder.forward = spy
        try:
            verification = original(runner, rows, bounds, proposal, tree, options)
        finally:
            del runner.decoder.forward
        verification.features = taken[0][:, : tree.depth + 1]
        return verification

    monkeypatch.setattr("ssd_lab.engine.rounds.launch_verify_tree", launch)


def of_another_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: each sequence gets its neighbour's features."""
    original = EagleProposer.observe
    monkeypatch.setattr(
        EagleProposer, "observe", lambda self, sequences, features: original(self, sequences, features.roll(1, 0))
    )


def of_the_first_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: all nodes of a level feed on the state of the first node of the level before."""
    original = grow_dynamic_tree._of_parents
    monkeypatch.setattr(
        grow_dynamic_tree, "_of_parents", lambda states, growth: original(states[:, :1].expand_as(states), growth)
    )
    follow = HeadReading.follow
    monkeypatch.setattr(
        HeadReading, "follow", lambda own, runner, step, s: follow(own, runner, step, s[:, :1].expand_as(s))
    )


@pytest.mark.quick(full=["dynamic-of_the_first_parent"])
@pytest.mark.grid(full=5)
@pytest.mark.parametrize("plant", [of_the_first_rows, of_another_sequence, of_the_first_parent])
@pytest.mark.parametrize("tree", ["widths", "dynamic"])
def test_the_twin_notices_features_and_states_of_other_rows(
    counting: Any, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch, tree: str, plant: Any
) -> None:
    """They change no text: only the twin sees them, and the number of tokens that a round keeps."""
    runs = []
    for broken in (False, True):
        if broken:
            plant(monkeypatch)
        with eagle(counting.target, counting.whole, tree, max_batch=4) as llm:
            runs.append(llm.run(PROMPTS, params(length=LENGTH)))
        assert [output.token_ids for output in runs[-1].outputs] == expected
    counting.twin(counting.whole).check(runs[0], 0.0)
    with pytest.raises(AssertionError):
        counting.twin(counting.whole).check(runs[1], 0.0)
    if plant is not of_the_first_parent:  # which leaves the first child of each level right
        assert runs[0].metrics.tokens_per_round > runs[1].metrics.tokens_per_round


def distribution(counting: Any, wanted: int, **fields: Any) -> CheckReport:
    extent = Extent(num_prompts=len(PROMPTS), batches=(), temperatures=(1.0,), draws=wanted)
    strategy = {"strategy": "eagle3", "head": counting.part, **fields}
    return check(
        [strategy], prompts=PROMPTS, target=counting.target, draft=None, dtype="float32", extent=extent,
        progress=False, threads=1,
    )  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize(
    "fields",
    [TREES["widths"], {**TREES["widths"], "draws": "top"}, TREES["dynamic"]],
    ids=["drawn", "top", "dynamic"],
)
def test_sampled_text_follows_the_target(counting: Any, fields: dict[str, Any]) -> None:
    report = distribution(counting, 700, **fields)
    assert {path.path for path in report.paths} == {"tree", "none"}
    assert found_wrong(report) == set() and all(path.impossible == 0 for path in report.paths)


def test_a_tree_wider_than_the_heads_vocabulary_is_refused(target: LoadedModel, tmp_path: Path) -> None:
    head = str(write_safeailab(tmp_path, head_tensors()))
    with pytest.raises(ConfigError, match="41 children of a node was asked for, and this head can name 40 tokens"):
        eagle(target, head, "widths", tree={"kind": "fixed", "widths": (41,)})
    eagle(target, head, "widths", tree={"kind": "fixed", "widths": (40,)}).close()


def test_a_tree_without_a_trace_gives_the_same_text(counting: Any, expected: list[list[int]]) -> None:
    with eagle(counting.target, counting.part, "dynamic", max_batch=3, record=False) as llm:
        outputs = llm.generate(PROMPTS, params(length=LENGTH))
    assert [output.token_ids for output in outputs] == expected


def test_the_end_of_the_context_ends_the_text(counting: Any) -> None:
    for tree in TREES:
        with eagle(counting.target, counting.whole, tree) as llm:
            output = llm.generate(PROMPTS[1], SamplingParams(max_tokens=400, ignore_eos=True))[0]
        assert len(output.prompt_ids) + len(output.token_ids) == 64 and output.finish_reason == "length"
