"""A round launched before the outcome of the one before it is read: the same text and records, whatever happens."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from replay_graphs import Backends

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.drafter import ModelDrafter
from ssd_lab.engine.flight import Flight
from ssd_lab.engine.rounds import Rounds
from ssd_lab.engine.scheduler import Scheduler
from ssd_lab.errors import ProposerError
from ssd_lab.execution.structure import flatten
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.rows import KnownState, RowBatch, StateOnDevice

PROMPTS = [[1, 2, 3, 4], [60, 61, 62], [7, 8, 9, 10, 11, 12, 13], [100, 101], [5, 5, 5, 9, 9]]
OPTIONS = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline"}
SHAPES: dict[str, dict[str, Any]] = {
    "fixed tree": {"kind": "fixed", "widths": (3, 2, 1, 1)},
    "optimal tree": {"kind": "optimal", "budget": 9, "acceptance": [0.5, 0.2, 0.1]},
    "dynamic tree": {"kind": "dynamic", "top_k": 3, "depth": 4, "num_nodes": 11},
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 3},
    **{name: {"strategy": "sync_tree", "tree": shape} for name, shape in SHAPES.items()},
}


class Counted:
    """How many rounds were launched before the outcome of the one before was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.followed = 0
        plain = Rounds.follow

        def counting(rounds: Rounds, *told: Any) -> Flight:
            self.followed += 1
            return plain(rounds, *told)

        monkeypatch.setattr(Rounds, "follow", counting)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def generated(pair: Any, strategy: str, params: list[SamplingParams] | SamplingParams, **fields: Any) -> Any:
    with LLM(pair.target, pair.draft, **OPTIONS, **{"strategy": strategy, **STRATEGIES[strategy], **fields}) as llm:
        result = llm.run(PROMPTS, params)
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    return result


def ids(result: Any) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


def decided(result: Any) -> list[tuple[Any, ...]]:
    """What each request went through, round by round."""
    return [
        (s.request_id, s.position, s.draft_tokens, s.num_accepted, s.recovery_token, s.num_emitted)
        + (() if s.tree is None else (s.tree.tokens, s.tree.parents))
        for s in sorted((s for r in result.trace.rounds for s in r.sequences), key=lambda s: (s.request_id, s.position))
    ]


@pytest.mark.quick("dynamic tree-1.0-3", "sync_chain-0.0-3", full=["autoregressive-0.0-1"])
@pytest.mark.grid(one_of=7)
@pytest.mark.parametrize("max_batch", [1, 3, 5])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_text_and_records_are_those_of_rounds_that_wait(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, counted: Counted, strategy: str, temperature: float, max_batch: int
) -> None:
    lengths = (24, 9, 31, 17, 1)
    params = [
        SamplingParams(max_tokens=n, temperature=temperature, seed=i, ignore_eos=True, top_p=0.9)
        for i, n in enumerate(lengths)
    ]
    expected = generated(tiny_pair, strategy, params, max_batch=max_batch)
    assert counted.followed == 0
    Backends.installed(monkeypatch)
    got = generated(tiny_pair, strategy, params, max_batch=max_batch)
    assert ids(got) == ids(expected) and decided(got) == decided(expected)
    # a request that is about to end by its length makes all that run beside it wait
    assert counted.followed > (0 if max_batch == len(PROMPTS) else 3)
    # the counts of the run hold no round that was launched in vain
    assert got.metrics.tokens_per_round == expected.metrics.tokens_per_round


@pytest.mark.quick("optimal tree")
@pytest.mark.grid(one_of=3)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_round_launched_in_vain_leaves_no_trace(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, counted: Counted, strategy: str
) -> None:
    """Requests end by a stop token, which the host learns of when the next round runs already."""
    whole = ids(generated(tiny_pair, strategy, SamplingParams(max_tokens=40, ignore_eos=True)))
    params = [
        SamplingParams(max_tokens=40, ignore_eos=True, stop_token_ids=[text[12 + i]]) for i, text in enumerate(whole)
    ]
    expected = generated(tiny_pair, strategy, params, max_batch=2)
    Backends.installed(monkeypatch)
    got = generated(tiny_pair, strategy, params, max_batch=2)
    assert counted.followed > 0
    assert ids(got) == ids(expected) and decided(got) == decided(expected)
    assert [o.finish_reason for o in got.outputs] == ["stop"] * len(PROMPTS)
    assert all(s.num_emitted > 0 for r in got.trace.rounds for s in r.sequences)
    assert got.metrics.as_dict().keys() == expected.metrics.as_dict().keys()


@pytest.mark.parametrize("columns", [2, 4, 8])
def test_rows_that_the_device_knows_are_placed_in_any_bucket(columns: int) -> None:
    """Two rows in a bucket of four, from a target that pads to two, four or eight."""
    placement = Placement(torch.device("cpu"), max_rows=4, width=3, block_size=16, bucket=lambda rows: 4)
    known = RowBatch(KnownState.of([7, 9], [1, 2], [3, 4]), [[1], [2, 3]], [(0.0, 0, 1.0, 0.0, 0)] * 2)
    mark = KnownState.of(*([9] * 4 for _ in range(3)))
    placement.place(RowBatch(mark, [[1]] * 4, [(0.0, 0, 1.0, 0.0, 0)] * 4))
    expected = [tensor.clone() for tensor in flatten(placement.place(known)[0])[0]]
    advanced = torch.zeros(3, columns, dtype=torch.int64)
    advanced[:, :2] = torch.tensor([[7, 9], [1, 2], [3, 4]])
    placed, bounds = placement.place(replace(known, state=StateOnDevice(advanced, longest=13)))
    assert all(torch.equal(*pair) for pair in zip(flatten(placed)[0], expected, strict=True)) and bounds.length == 13


def test_what_the_device_alone_knows_cannot_be_read_on_the_host() -> None:
    rows = RowBatch(
        StateOnDevice(torch.zeros(3, 2, dtype=torch.int64), longest=9), [[1], [2]], [(0.0, 0, 1.0, 0.0, 0)] * 2
    )
    assert len(rows) == 2 and rows.all_greedy and rows.state.longest == 9
    for read in (
        lambda: rows.lengths,
        lambda: rows.previous_tokens,
        lambda: rows.last_tokens,
        lambda: rows.select([0]),
    ):
        with pytest.raises(ProposerError, match="lie on the device"):
            read()


def test_rounds_do_not_overlap_on_the_runs_clock(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    Backends.installed(monkeypatch)
    rounds = generated(tiny_pair, "sync_chain", SamplingParams(max_tokens=30, ignore_eos=True)).trace.rounds
    assert counted.followed > 0
    assert all(one.start_s <= one.end_s <= two.start_s for one, two in itertools.pairwise(rounds))


@pytest.mark.full
@pytest.mark.parametrize(("strategy", "blocks"), [("sync_chain", 14), ("fixed tree", 18), ("dynamic tree", 19)])
def test_without_blocks_for_two_rounds_the_host_waits(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, counted: Counted, strategy: str, blocks: int
) -> None:
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    small = {"num_blocks": blocks, "block_size": 4, "max_batch": 3, "max_model_len": 47}
    expected = generated(tiny_pair, strategy, params, **small)
    Backends.installed(monkeypatch)
    plain, extended = Scheduler.extend, []
    monkeypatch.setattr(Scheduler, "extend", lambda *given: extended.append(plain(*given)) or extended[-1])
    got = generated(tiny_pair, strategy, params, **small)
    assert ids(got) == ids(expected) and set(extended) == {True, False}


def _of_another_row(keep: Any) -> Any:
    return lambda self, reading, paths, written: keep(self, reading, paths.roll(1, 0), written)


def _at_the_hosts_bounds(keep: Any) -> Any:
    """The lengths of the rows as they are after the round."""

    def wrong(self: Any, reading: Any, paths: torch.Tensor, written: torch.Tensor) -> None:
        moved = replace(reading.rows, lengths=reading.rows.lengths + (paths >= 0).sum(1) + 1)
        keep(self, replace(reading, rows=moved), paths, written)

    return wrong


@pytest.mark.quick(full=["dynamic tree-_at_the_hosts_bounds"])
@pytest.mark.grid(full=5)
@pytest.mark.parametrize("planted", [_of_another_row, _at_the_hosts_bounds])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_draft_that_keeps_a_wrong_path_is_found(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, shape: str, planted: Any
) -> None:
    params = [SamplingParams(max_tokens=30, seed=i, ignore_eos=True) for i in range(len(PROMPTS))]
    expected = generated(tiny_pair, shape, params, max_batch=4)
    Backends.installed(monkeypatch)
    monkeypatch.setattr(ModelDrafter, "keep", planted(ModelDrafter.keep))
    got = generated(tiny_pair, shape, params, max_batch=4)
    assert ids(got) == ids(expected)  # the target decides
    assert decided(got) != decided(expected)


@pytest.mark.full
@pytest.mark.parametrize("shape", SHAPES)
def test_the_previous_token_is_the_last_accepted_nodes_or_the_last_committed(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, counted: Counted, shape: str
) -> None:
    """What the device tells of the next rows is what the host finds out, for paths of no node and of some."""
    Backends.installed(monkeypatch)
    told: list[tuple[Any, list[Any], torch.Tensor]] = []
    plain = Rounds.follow

    def noting(rounds: Rounds, flight: Flight, advanced: torch.Tensor) -> Flight:
        own = advanced[:, : len(flight.sequences)].clone()
        told.append((flight, [len(s.token_ids) for s in flight.sequences], own))
        return plain(rounds, flight, advanced)

    monkeypatch.setattr(Rounds, "follow", noting)
    params = SamplingParams(max_tokens=30, ignore_eos=True)
    generated(tiny_pair, shape, params, max_batch=3)
    grown = set()
    for flight, lengths, advanced in told:
        for sequence, before, (after, previous, last) in zip(
            flight.sequences, lengths, advanced.T.tolist(), strict=True
        ):
            grown.add(after - before)
            assert sequence.token_ids[after - 2 : after] == [previous, last]
    assert 1 in grown and max(grown) > 2


@pytest.mark.quick("optimal tree")
@pytest.mark.parametrize("strategy", ["sync_chain", *SHAPES])
def test_requests_may_come_and_go_while_a_round_is_on_its_way(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, counted: Counted, strategy: str
) -> None:
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    alone = ids(generated(tiny_pair, strategy, params))
    Backends.installed(monkeypatch)
    fields = {"strategy": strategy, **STRATEGIES[strategy]}
    with LLM(tiny_pair.target, tiny_pair.draft, **fields, **OPTIONS, max_batch=4) as llm:
        engine = llm._engine
        first, second = (engine.submit(PROMPTS[i], params, seed=0) for i in (0, 1))
        kept = {first: engine.sequence(first)}
        for _ in range(4):
            engine.step()
        cut = engine.cancel(second)
        assert cut is not None and cut.output_ids == alone[1][: len(cut.output_ids)]
        third = engine.submit(PROMPTS[2], params, seed=0)
        kept[third] = engine.sequence(third)
        while engine.has_work:
            assert all(sequence.request_id != second for sequence in engine.step())
        assert counted.followed > 5
        assert kept[first].output_ids == alone[0] and kept[third].output_ids == alone[2]
        assert llm.num_free_blocks == engine._blocks.num_usable


def test_a_draft_that_stops_making_numbers_is_left_out_at_once(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    expected = ids(generated(tiny_pair, "autoregressive", params))
    Backends.installed(monkeypatch)
    with LLM(tiny_pair.target, tiny_pair.draft, "sync_chain", k=3, **OPTIONS, max_batch=5) as llm:
        engine = llm._engine
        sequences = [engine.sequence(engine.submit(prompt, params, seed=0)) for prompt in PROMPTS]
        for _ in range(4):
            engine.step()
        assert engine._flight is not None and counted.followed > 0
        cache = engine.proposer.link._worker._drafter.runner.cache
        with torch.inference_mode():
            for tensor in cache.layers:
                tensor.fill_(torch.nan)
        with pytest.warns(RuntimeWarning, match="NaN or infinity"):
            engine.step()
        while engine.has_work:
            engine.step()
        assert [sequence.output_ids for sequence in sequences] == expected
