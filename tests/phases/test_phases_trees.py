"""Trees in the engine: the draft grows what it would grow from scratch, and what is kept ends where it belongs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from worker_rounds import asked, round_of

from ssd_lab import LLM, SamplingParams
from ssd_lab.decoding.topology import Topology, from_widths
from ssd_lab.drafting.tree_worker import TreePlan
from ssd_lab.drafting.worker_setup import WorkerSetup
from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.links.link import InlineLink
from ssd_lab.links.messages import KeptMessage, PrefillMessage
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import load_model
from ssd_lab.phases import keep_path, verify_tree
from ssd_lab.phases.grow_dynamic_tree import DynamicShape
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import KnownState, RowBatch
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.token_tree import TokenTree, paths_from_root

PROMPTS = ["Hello there", "The quick brown fox jumps", "def add(a, b):", "1 + 2 ="]
SHAPES: dict[str, dict[str, Any]] = {
    "fixed": {"kind": "fixed", "widths": (3, 2, 1, 1)},
    "paths": {"kind": "fixed", "paths": ((0,), (1,), (0, 0), (1, 0), (1, 1), (1, 1, 0))},
    "dynamic": {"kind": "dynamic", "top_k": 3, "depth": 4, "num_nodes": 11},
}


@pytest.fixture(scope="module")
def pair(tiny_pair) -> tuple[Any, Any]:
    return load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")


def opened(models: Any, strategy: str, **fields: Any) -> LLM:
    options = {"progress": False, "threads": 1, "draft_link": "inline", "num_blocks": 300, **fields}
    return LLM(*models, strategy, **options)


def run(pair: Any, shape: str, **params: Any) -> Any:
    with opened(pair, "sync_tree", tree=SHAPES[shape], max_batch=3) as llm:
        return llm.run(PROMPTS, SamplingParams(**{"max_tokens": 30, "ignore_eos": True, **params}))


def paths(tree: Any) -> list[list[int]]:
    """Of every node the nodes from the root down to it."""
    found: list[list[int]] = []
    for node, parent in enumerate(tree.parents):
        found.append([*(found[parent] if parent >= 0 else []), node])
    return found


def wrong_nodes(pair: Any, result: Any) -> tuple[int, int]:
    """How many nodes are not the draft's own likeliest tokens after their path, by plain forwards; and of how many."""
    wrong = total = 0
    with opened((pair[1], None), "autoregressive") as plain:
        for one in result.trace.rounds:
            for row in one.sequences:
                output = next(o for o in result.outputs if o.request_id == row.request_id)
                text = [*output.prompt_ids, *output.token_ids][: row.position]
                for node, path in enumerate(paths(row.tree)):
                    above = [row.tree.tokens[i] for i in path[:-1]]
                    rank = sum(p == row.tree.parents[node] for p in row.tree.parents[:node])
                    likeliest = plain.score([*text, *above])[-1].topk(rank + 1).indices
                    wrong += int(likeliest[rank]) != row.tree.tokens[node]
                    total += 1
    return wrong, total


@pytest.mark.quick("dynamic")
@pytest.mark.parametrize("shape", SHAPES)
def test_the_draft_grows_the_tree_that_it_would_grow_from_scratch(pair, shape: str) -> None:
    result = run(pair, shape, max_tokens=14)
    assert result.metrics.tokens_per_round > 1.5
    wrong, total = wrong_nodes(pair, result)
    assert total >= 100
    assert wrong == 0


def test_a_draft_that_keeps_nothing_of_its_tree_is_found(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: K/V of the accepted nodes stays where it was written."""
    monkeypatch.setattr("ssd_lab.drafting.tree_worker.TreeWorker._keep", lambda self, message: None)
    assert wrong_nodes(pair, run(pair, "fixed", max_tokens=14))[0] > 3


@pytest.mark.full
def test_a_target_that_keeps_nothing_of_the_tree_is_found(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: as above, on the target's side."""
    with opened(pair, "autoregressive") as llm:
        expected = [o.token_ids for o in llm.generate(PROMPTS, SamplingParams(max_tokens=30, ignore_eos=True))]
    assert [o.token_ids for o in run(pair, "fixed").outputs] == expected
    monkeypatch.setattr(verify_tree, "move_path", lambda *_: None)
    assert [o.token_ids for o in run(pair, "fixed").outputs] != expected


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_trace_holds_the_tree_that_was_verified(pair, shape: str, temperature: float) -> None:
    result = run(pair, shape, max_tokens=16, temperature=temperature, seed=5)
    depth = max(len(path) for one in result.trace.rounds for row in one.sequences for path in paths(row.tree))
    assert len(result.metrics.acceptance_by_position) <= depth
    with opened((pair[0], None), "autoregressive") as plain:
        for one in result.trace.rounds:
            for row in one.sequences:
                tree, every = row.tree, paths(row.tree)
                chain = [path for path in every if [tree.tokens[i] for i in path] == row.draft_tokens]
                assert chain or not row.draft_tokens
                if chain:
                    assert row.draft_probs == [tree.draft_probs[i] for i in chain[0]]
                    assert row.target_probs == [tree.target_probs[i] for i in chain[0]]
                assert (row.origin, row.coins) == ("tree", None)
                assert (row.recovery_coin is None) == (temperature == 0)
                output = next(o for o in result.outputs if o.request_id == row.request_id)
                text = [*output.prompt_ids, *output.token_ids]
                kept = [*row.draft_tokens[: row.num_accepted], row.recovery_token][: row.num_emitted]
                assert text[row.position : row.position + row.num_emitted] == kept
        row = result.trace.rounds[1].sequences[0]
        output = next(o for o in result.outputs if o.request_id == row.request_id)
        text = [*output.prompt_ids, *output.token_ids][: row.position]
        for node, path in enumerate(paths(row.tree)):
            logits = plain.score([*text, *[row.tree.tokens[i] for i in path[:-1]]])[-1]
            expected = torch.softmax(logits / (temperature or 1.0), -1)[row.tree.tokens[node]]
            assert row.tree.target_probs[node] == pytest.approx(float(expected), abs=1e-4)


def test_a_filter_that_leaves_few_tokens_leaves_places_empty(pair) -> None:
    result = run(pair, "fixed", temperature=0.5, top_k=2, seed=1)
    rounds = [row for one in result.trace.rounds for row in one.sequences]
    assert all(sum(parent == -1 for parent in row.tree.parents) <= 2 for row in rounds)  # of the three asked for
    assert all(max(row.tree.parents) < len(row.tree.tokens) for row in rounds)
    assert result.metrics.tokens_per_round > 1.2


def test_a_tree_without_a_trace_gives_the_same_text(pair) -> None:
    recorded = run(pair, "dynamic")
    with opened(pair, "sync_tree", tree=SHAPES["dynamic"], max_batch=3, record=False) as llm:
        silent = llm.run(PROMPTS, SamplingParams(max_tokens=30, ignore_eos=True))
    assert [o.token_ids for o in silent.outputs] == [o.token_ids for o in recorded.outputs]
    assert silent.metrics.acceptance_by_position == recorded.metrics.acceptance_by_position


def test_paths_from_the_root() -> None:
    parents = torch.tensor([[-1, -1, 0, 1, 3], [-1, 0, 1, 2, 3]])
    ancestors, depths = paths_from_root(parents, 5)
    assert depths.tolist() == [[1, 1, 2, 2, 3], [1, 2, 3, 4, 5]]
    assert ancestors[0].tolist() == [
        [0, -1, -1, -1, -1], [1, -1, -1, -1, -1], [0, 2, -1, -1, -1], [1, 3, -1, -1, -1], [1, 3, 4, -1, -1],
    ]  # fmt: skip
    assert ancestors[1, 4].tolist() == [0, 1, 2, 3, 4]


def test_a_path_is_moved_as_one_token_after_the_other_would_be(pair) -> None:
    """Against a loop. The last node of a path stays where it is, as it was never fed; a second run (a capture makes
    one) changes nothing if nodes were written behind all places.
    """
    decoder = pair[1].decoder
    generator = torch.Generator().manual_seed(0)
    cache = PagedKVCache(pair[1].config, 9, 4, torch.float32, "cpu")
    for layer in cache.layers:
        layer.copy_(torch.randn(layer.shape, generator=generator))
    runner = StepRunner(decoder, cache, torch.device("cpu"))
    tables, lengths = [[3, 1, 4, 2], [8, 5, 6, 7]], [5, 3]
    rows, _ = Placement(torch.device("cpu"), max_rows=2, width=4, block_size=4).place(
        RowBatch(KnownState.of(lengths, [0, 0], [0, 0]), tables, [(0.0, 0, 1.0, 0.0, 0)] * 2)
    )
    written = torch.tensor([[9, 4, 5, 6, -1, -1], [3, 5, 8, 7, -1, -1]])
    paths = torch.tensor([[1, 3, 4, -1], [0, 1, 2, 4]])
    moved = [[4, 6], [3, 5, 8]]
    expected = [layer.clone() for layer in cache.layers]
    for layer, before in zip(expected, [layer.clone() for layer in cache.layers], strict=True):
        for row, (table, length) in enumerate(zip(tables, lengths, strict=True)):
            for place, source in enumerate(moved[row]):
                read, write = length + source, length + place
                layer[table[write // 4] * 4 + write % 4] = before[table[read // 4] * 4 + read % 4]
    for _ in range(2):
        runner.run(keep_path.KeepPathPhase(), keep_path.KeepPathInputs(rows, paths, written))
        for layer, wanted in zip(cache.layers, expected, strict=True):
            assert torch.equal(layer[4:], wanted[4:])  # block 0 is the dump


@pytest.mark.quick("fixed-InlineLink", "dynamic-InlineLink", "fixed-ProcessLink")
@pytest.mark.parametrize("kind", [InlineLink, ProcessLink])
@pytest.mark.parametrize("shape", [from_widths([2, 2]), DynamicShape(2, 3, 5)], ids=["fixed", "dynamic"])
def test_a_tree_travels_over_any_link(tiny_pair, kind: type, shape: Topology | DynamicShape) -> None:
    plan = TreePlan(shape, drawn=True)
    setup = WorkerSetup(tiny_pair.draft, "float32", "cpu", 20, 8, 4, 1, plan, longest_table=4)
    link = InlineLink(setup.make_worker()) if kind is InlineLink else ProcessLink(setup, start_timeout_s=60)
    try:
        link.post(PrefillMessage([PromptPart([5, 6, 7], 0, [1, 2])]))
        sampling = (0.9, 0, 1.0, 0.0, 3)
        first = asked(link, round_of(4, 8, None, 7), sampling).answer(60)
        path = torch.tensor([[0, 2, -1]])[:, : shape.depth]
        link.post(KeptMessage(DeviceTensor.of(path)))
        tokens = first.tokens[0].tolist()
        after = round_of(7, 9, 2, tokens[2])
        second = asked(link, after, sampling).answer(60)
    finally:
        link.close()
    assert first.tree is not None and first.tree.problem(1, shape.num_nodes, shape.depth) is None
    reference = InlineLink(setup.make_worker())
    reference.post(PrefillMessage([PromptPart([5, 6, 7, 8, tokens[0]], 0, [1, 2])]))
    assert asked(reference, after, sampling).answer(60).tokens.tolist() == second.tokens.tolist()


def test_a_path_is_kept_on_the_drafts_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the target chose it."""
    seen: list[torch.Tensor] = []
    drafter: Any = SimpleNamespace(
        device=torch.device("meta"), keep=lambda reading, paths, written: seen.append(paths)
    )  # a device that is not the sender's
    worker = TreePlan(from_widths([2, 2]), drawn=True).make_worker(drafter)
    monkeypatch.setattr(worker, "_grown", (None, SimpleNamespace(written=torch.zeros(1, 6, device="meta"))))
    worker.handle(KeptMessage(DeviceTensor.of(torch.tensor([[0, 2]]))))
    assert [paths.device.type for paths in seen] == ["meta"]


def tree_of(parents: list[int], **fields: Any) -> TokenTree:
    given = {"parents": torch.tensor([parents]), "valid": torch.ones(1, len(parents), dtype=torch.bool)}
    given |= {"drawn_from": torch.zeros(1, len(parents), dtype=torch.int64)}
    given |= {"certain": torch.ones(1, dtype=torch.bool), "depth": 2, "width": 2}
    return TokenTree(**{**given, **fields})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (tree_of([-1, 1]), "an earlier node"),
        (tree_of([-1, -2]), "an earlier node"),
        (tree_of([-1]), r"tree.parents must be torch.int64 \[sequences, nodes\] = \[1, 2\]"),
        (tree_of([-1, 0], valid=torch.ones(1, 2)), "tree.valid must be torch.bool"),
        (tree_of([-1, 0], depth=4), "4 deep, and the strategy declared at most 3"),
        (tree_of([-1, 0], certain=torch.ones(2, dtype=torch.bool)), "tree.certain"),
    ],
)
def test_a_wrong_tree_is_refused(tree: TokenTree, message: str) -> None:
    proposal = Proposal(torch.tensor([[1, 2]]), [2], None, ["mine"], [None], tree=tree)
    problem = proposal.problem(1, 3, 10, nodes=4)
    assert problem is not None
    with pytest.raises(ValueError, match=message):
        raise ValueError(problem)


def test_a_right_tree_is_not() -> None:
    for parents in ([-1, -1], [-1, 0]):
        proposal = Proposal(torch.tensor([[1, 2]]), [2], None, ["mine"], [None], tree=tree_of(parents))
        assert proposal.problem(1, 3, 10, nodes=4) is None
