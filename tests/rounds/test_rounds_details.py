"""`record_details`: the alternatives in a trace are the models' own numbers, and explain what happened."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from replay_graphs import Backends

import ssd_lab
from ssd_lab import LLM, SamplingParams
from ssd_lab.decoding.saguaro import saguaro_distribution
from ssd_lab.models.loader import load_model
from ssd_lab.trace import SequenceRound, TreeRecord, load_trace

PROMPTS = ["Hello there", "def add(a, b):", "1 + 2 ="]
TEMPERATURE = 0.8
TREE = {"kind": "fixed", "widths": (3, 2, 1)}


@pytest.fixture(scope="module")
def pair(tiny_pair) -> tuple[Any, Any]:
    return load_model(tiny_pair.target, dtype="float32"), load_model(tiny_pair.draft, dtype="float32")


def run(pair: Any, strategy: str, *, temperature: float = TEMPERATURE, **fields: Any) -> Any:
    options = {"progress": False, "threads": 1, "draft_link": "inline", "max_batch": 2, "record_details": 5, **fields}
    with LLM(*pair, strategy, **options) as llm:
        params = SamplingParams(max_tokens=24, ignore_eos=True, temperature=temperature, seed=7)
        return llm.run(PROMPTS, params)


def rows(result: Any) -> list[SequenceRound]:
    return [row for one in result.trace.rounds for row in one.sequences]


def text_before(result: Any, row: SequenceRound) -> list[int]:
    output = next(o for o in result.outputs if o.request_id == row.request_id)
    return [*output.prompt_ids, *output.token_ids][: row.position]


class Plain:
    """A model's distribution after a text, by a forward of its own."""

    def __init__(self, model: Any) -> None:
        self._llm = LLM(model, None, "autoregressive", progress=False, threads=1)

    def __call__(self, text: list[int]) -> torch.Tensor:
        return torch.softmax(self._llm.score(text)[-1].double() / TEMPERATURE, -1)


def children_of(tree: TreeRecord, node: int) -> list[int]:
    return [child for child, parent in enumerate(tree.parents) if parent == node]


def kept_by_coins(tree: TreeRecord) -> list[int]:
    """Which path the recorded numbers alone let one expect."""
    path: list[int] = []
    at = -1
    while True:
        for child in children_of(tree, at):
            place = tree.alternatives[child]
            own = place.tokens.index(tree.tokens[child])
            if tree.coins[child] * place.draft_probs[own] < place.target_probs[own]:
                at = child
                path.append(child)
                break
        else:
            return path


def test_what_was_recorded_of_a_tree_decides_as_the_run_did(pair) -> None:
    found = rows(run(pair, "sync_tree", tree=TREE))
    refused_first = 0
    for row in found:
        path = kept_by_coins(row.tree)
        assert [row.tree.tokens[node] for node in path] == row.draft_tokens[: row.num_accepted]
        refused_first += any(node != children_of(row.tree, row.tree.parents[node])[0] for node in path)
    assert len(found) > 15 and refused_first > 1  # some were kept after a sibling was refused


def test_numbers_that_leave_refusals_out_would_be_noticed(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: a refused sibling changes nothing."""
    monkeypatch.setattr("ssd_lab.phases.tree_alternatives.residual", lambda p, q: p)
    found = rows(run(pair, "sync_tree", tree=TREE))
    assert any(
        [row.tree.tokens[node] for node in kept_by_coins(row.tree)] != row.draft_tokens[: row.num_accepted]
        for row in found
    )


def test_alternatives_of_a_tree_are_what_plain_forwards_and_the_law_of_refusals_give(pair) -> None:
    result = run(pair, "sync_tree", tree=TREE)
    target, draft = Plain(pair[0]), Plain(pair[1])
    for row in rows(result)[2:5]:
        above: dict[int, list[int]] = {-1: text_before(result, row)}
        for parent in [-1, *range(len(row.tree.tokens))]:
            p, q = target(above[parent]), draft(above[parent])
            listed = {*p.topk(5).indices.tolist(), *q.topk(5).indices.tolist()}
            for child in children_of(row.tree, parent):
                token, place = row.tree.tokens[child], row.tree.alternatives[child]
                above[child] = [*above[parent], token]
                assert listed | {token} <= set(place.tokens)
                assert place.target_probs == pytest.approx(p[place.tokens].tolist(), abs=2e-4)
                assert place.draft_probs == pytest.approx(q[place.tokens].tolist(), abs=2e-4)
                p = (p - q).clamp(min=0)  # what stands when the next sibling is tried
                p = p / p.sum()
                q = q.index_fill(0, torch.tensor([token]), 0.0)
                q = q / q.sum()
        along = [row.alternatives[0], row.alternatives[row.num_accepted]]
        for place, text in zip(along, ([], row.draft_tokens[: row.num_accepted]), strict=True):
            p = target([*text_before(result, row), *text])
            assert place.target_probs == pytest.approx(p[place.tokens].tolist(), abs=2e-4)
        assert len(row.alternatives) == len(row.draft_tokens) + 1 and row.alternatives[-1].draft_probs is None


@pytest.mark.parametrize("tree", [TREE, {"kind": "dynamic", "top_k": 3, "depth": 3, "num_nodes": 8}])
def test_certain_guesses_in_a_tree_have_no_draft_distribution_and_no_coins(pair, tree: dict[str, Any]) -> None:
    greedy = rows(run(pair, "sync_tree", tree=tree, temperature=0.0))
    for row in greedy:
        assert row.tree.coins is None and all(place.draft_probs is None for place in row.tree.alternatives)
        for node, place in enumerate(row.tree.alternatives):
            own = place.tokens.index(row.tree.tokens[node])
            assert place.target_probs[own] == pytest.approx(row.tree.target_probs[node], abs=1e-5)
    if tree["kind"] == "dynamic":  # its nodes are guesses at every temperature; each refusal takes its token away
        for row in rows(run(pair, "sync_tree", tree=tree)):
            first, *others = children_of(row.tree, -1)
            gone = row.tree.tokens[first]
            for other in others:
                place = row.tree.alternatives[other]
                assert gone not in place.tokens or place.target_probs[place.tokens.index(gone)] == 0


def test_a_tree_with_details_survives_a_file_and_the_text_is_the_same(pair, tmp_path) -> None:
    result = run(pair, "sync_tree", tree=TREE)
    result.trace.save(tmp_path / "trace.jsonl")
    assert load_trace(tmp_path / "trace.jsonl").rounds == result.trace.rounds
    silent = run(pair, "sync_tree", tree=TREE, record_details=0)
    assert [o.token_ids for o in silent.outputs] == [o.token_ids for o in result.outputs]
    assert rows(silent)[0].tree.alternatives is None is rows(silent)[0].tree.coins


@pytest.mark.quick("inline")
@pytest.mark.parametrize("link", ["inline", "process"])
def test_the_draft_before_saguaro_sampling_is_its_plain_distribution(pair, link: str) -> None:
    result = run(pair, "async_tree", k=3, f=2, saguaro_c=0.2, draft_link=link)
    draft = Plain(pair[1])
    drawn = [row for row in rows(result) if row.origin in ("hit", "jit")]
    assert {row.origin for row in drawn} == {"hit", "jit"}
    for row in drawn[:8]:
        for place in range(len(row.draft_tokens)):
            raw = draft([*text_before(result, row), *row.draft_tokens[:place]])
            used = saguaro_distribution(raw, torch.tensor(2), 0.2, 2)
            shown = row.alternatives[place]
            assert set(raw.topk(5).indices.tolist()) <= set(shown.tokens)
            assert shown.draft_raw_probs == pytest.approx(raw[shown.tokens].tolist(), abs=2e-4)
            assert shown.draft_probs == pytest.approx(used[shown.tokens].tolist(), abs=2e-4)


def test_without_saguaro_sampling_there_is_no_before(pair) -> None:
    for row in rows(run(pair, "async_tree", k=3, f=2)):
        assert all(place.draft_raw_probs is None for place in row.alternatives)


@pytest.mark.quick("sync_tree-fields0")
@pytest.mark.parametrize(
    ("strategy", "fields"), [("sync_tree", {"tree": TREE}), ("async_tree", {"k": 3, "f": 2, "saguaro_c": 0.2})]
)
def test_graphs_give_the_same_details(
    pair, monkeypatch: pytest.MonkeyPatch, strategy: str, fields: dict[str, Any]
) -> None:
    def places(result: Any) -> list[Any]:
        ordered = sorted(rows(result), key=lambda row: (row.request_id, row.position))
        trees = [row.tree.alternatives if row.tree is not None else None for row in ordered]
        return [place for row, own in zip(ordered, trees, strict=True) for place in (*row.alternatives, *(own or ()))]

    eager = places(run(pair, strategy, **fields))
    Backends.installed(monkeypatch)
    replayed = places(run(pair, strategy, **fields))
    for before, after in zip(eager, replayed, strict=True):
        assert before.tokens == after.tokens
        for name in ("target_probs", "draft_probs", "draft_raw_probs"):
            assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-5)


def test_a_run_in_a_notebook_records_what_the_views_show(pair, monkeypatch) -> None:
    monkeypatch.setattr("ssd_lab.api.in_notebook", lambda: True)
    target, draft = pair
    options = {"strategy": "sync_chain", "k": 2, "max_tokens": 3, "threads": 1, "progress": False}
    (row,) = ssd_lab.run("Hello", target=target, draft=draft, **options).trace.rounds[0].sequences
    assert len(row.alternatives[0].tokens) == 8
