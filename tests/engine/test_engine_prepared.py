"""Rounds prepared for hits, and started before the draft is told: the same text and records, and less to wait for."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from replay_graphs import Backends

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.decoding.branches import Found
from ssd_lab.drafting import worker_learning
from ssd_lab.drafting.draft_worker import DraftWorker
from ssd_lab.drafting.speculation_cache import SpeculationCache
from ssd_lab.drafting.tree_ahead import TreeAhead
from ssd_lab.engine.flight import Flight, PreparedRound
from ssd_lab.engine.preparing import AGAIN, FIRST, ORDINARY_AGAIN, Preparing
from ssd_lab.engine.rounds import Rounds
from ssd_lab.execution.host_copy import HostCopy
from ssd_lab.kernels.torch_kernels import TorchKernels
from ssd_lab.learning.fallback_choice import FallbackChooser
from ssd_lab.links.messages import RoundMessage

PROMPTS = [[1, 2, 3, 4], [60, 61, 62], [7, 8, 9, 10, 11, 12, 13]]
OPTIONS = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline", "max_batch": 3}
DRAFTS: dict[str, dict[str, Any]] = {
    "jit": {},
    "stale": {"fallback": {"kind": "fast"}},
    "adaptive": {"f": None, "fan_out": {"kind": "adaptive", "budget": 12}, "saguaro_c": 0.5},
    "learnt": {"f": None, "fan_out": {"kind": "adaptive", "budget": 12, "by_confidence": False, "every": 4}},
}
FAST = [("jit", 0.0, 3), ("adaptive", 1.0, 1)]
CASES = [
    case if case in FAST else pytest.param(*case, marks=pytest.mark.full)
    for case in itertools.product(DRAFTS, (0.0, 1.0), (1, 3))
]


class Started:
    """Rounds that were prepared, those of them that were started, and what the host did in between."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prepared = self.started = self.trees = self.trees_taken = 0
        self.done: list[str] = []  # since the last round was collected
        self.before_start: list[list[str]] = []
        prepare, start, collect = Rounds.prepare, Rounds.start, Rounds.collect
        arrays, handle = HostCopy.arrays, DraftWorker.handle
        start_tree, take_tree = TreeAhead.start, TreeAhead.take

        def preparing(rounds: Rounds, *given: Any) -> PreparedRound | None:
            made = prepare(rounds, *given)
            self.prepared += made is not None
            return made

        def starting(rounds: Rounds, prepared: PreparedRound) -> Flight:
            self.before_start.append(list(self.done))
            self.started += 1
            return start(rounds, prepared)

        def collecting(rounds: Rounds, *given: Any) -> Any:
            self.done = []
            return collect(rounds, *given)

        def reading(copy: HostCopy) -> Any:
            self.done.append("read")
            return arrays(copy)

        def handling(worker: DraftWorker, message: Any) -> Any:
            self.done.append("asked" if isinstance(message, RoundMessage) else "posted")
            return handle(worker, message)

        def starting_tree(ahead: TreeAhead) -> None:
            start_tree(ahead)
            self.trees += ahead.has_begun

        def taking_tree(ahead: TreeAhead, growth: Any) -> Any:
            taken = take_tree(ahead, growth)
            self.trees_taken += taken is not None
            return taken

        monkeypatch.setattr(TreeAhead, "start", starting_tree)
        monkeypatch.setattr(TreeAhead, "take", taking_tree)
        monkeypatch.setattr(Preparing, "pays", lambda *given: True)  # a CPU's host is the device
        monkeypatch.setattr(Rounds, "prepare", preparing)
        monkeypatch.setattr(Rounds, "start", starting)
        monkeypatch.setattr(Rounds, "collect", collecting)
        monkeypatch.setattr(HostCopy, "arrays", reading)
        monkeypatch.setattr(DraftWorker, "handle", handling)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(monkeypatch)


def opened(pair: Any, **fields: Any) -> LLM:
    return LLM(pair.target, pair.draft, "async_tree", **{"k": 3, "f": 4, **OPTIONS, **fields})


def generated(pair: Any, params: Any, prompts: list[list[int]] = PROMPTS, **fields: Any) -> Any:
    with opened(pair, **fields) as llm:
        result = llm.run(prompts, params)
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    return result


def waited(
    pair: Any, monkeypatch: pytest.MonkeyPatch, params: Any, prompts: list[list[int]] = PROMPTS, **fields: Any
) -> Any:
    """The same with graphs, and with no round prepared."""
    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "prepare", lambda *given: None)
        return generated(pair, params, prompts, **fields)


def ids(result: Any) -> list[list[int]]:
    return [output.token_ids for output in result.outputs]


def recorded(result: Any) -> list[Any]:
    """All that the trace says of each request's rounds; it holds no times."""
    rows = [sequence for one in result.trace.rounds for sequence in one.sequences]
    return sorted(rows, key=lambda row: (row.request_id, row.position))


@pytest.mark.quick("adaptive-1.0-1")
@pytest.mark.grid(full=3)
@pytest.mark.parametrize(("draft", "temperature", "batch"), CASES)
def test_text_and_records_are_those_of_rounds_that_wait(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started, draft: str, temperature: float, batch: int
) -> None:
    """Whatever answers a miss, and whatever is learnt, in any order of captures."""
    params = [SamplingParams(max_tokens=24 + i, temperature=temperature, seed=i, ignore_eos=True) for i in range(batch)]
    fields = {**DRAFTS[draft], "max_batch": batch}
    plain = generated(tiny_pair, params, PROMPTS[:batch], **fields)
    assert started.prepared == 0
    Backends.installed(monkeypatch, recapture_every=17)
    expected = waited(tiny_pair, monkeypatch, params, PROMPTS[:batch], **fields)
    got = generated(tiny_pair, params, PROMPTS[:batch], **fields)
    assert ids(got) == ids(plain) and recorded(got) == recorded(expected)
    assert got.metrics.cache_hit_rate == plain.metrics.cache_hit_rate
    misses = sum(row.cache_hit is False for row in recorded(got))
    if draft == "stale":  # answers them too
        assert misses > 0 and started.started >= 0.9 * started.prepared > 5
    else:  # misses are not started ahead, hits are
        assert started.prepared > started.started
    assert started.started > 0 or (temperature, batch) == (1.0, 3)  # where three rows hit at once by luck alone
    assert started.trees_taken <= started.trees <= started.started
    if draft in ("jit", "stale"):
        assert started.trees_taken == started.started
    if draft == "adaptive":  # its trees go by what the last round taught: one is grown in vain, then none is begun
        assert started.trees_taken <= started.trees <= 1


@pytest.mark.parametrize("batch", [1, 3])
def test_a_choice_of_stale_branches_that_is_foreseen_prepares_misses_too(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started, batch: int
) -> None:
    """Drafting now is made to look slow. While it is tried, and tried again, rounds with misses wait for the host."""
    monkeypatch.setattr(worker_learning, "seconds", lambda span: 0.0 if span is None else 1.0)
    params = [SamplingParams(max_tokens=48, temperature=1.0, seed=i, ignore_eos=True) for i in range(batch)]
    fields = {"fallback": {"kind": "auto", "explore": 2, "revisit": 7}, "max_batch": batch}
    Backends.installed(monkeypatch)
    expected = waited(tiny_pair, monkeypatch, params, PROMPTS[:batch], **fields)
    got = generated(tiny_pair, params, PROMPTS[:batch], **fields)
    assert ids(got) == ids(expected) and recorded(got) == recorded(expected)
    origins = [row.origin for row in recorded(got)[batch:]]
    assert origins.count("fast") > origins.count("jit") > 3
    hits = sum(all(row.cache_hit for row in one.sequences) for one in got.trace.rounds)
    assert started.started > hits + 5


def test_a_round_that_runs_is_recorded_as_it_was_answered_even_if_something_else_was_foreseen(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    monkeypatch.setattr(FallbackChooser, "foreseen", lambda rule, batch: "fast")
    monkeypatch.setattr(FallbackChooser, "choose", lambda rule, batch, missed: "jit")
    params = SamplingParams(max_tokens=48, ignore_eos=True)
    expected = ids(generated(tiny_pair, params, fallback={"kind": "fast"}))
    Backends.installed(monkeypatch)
    got = generated(tiny_pair, params, fallback={"kind": "auto"})
    assert ids(got) == expected
    for row in recorded(got):
        text = [*PROMPTS[row.request_id], *ids(got)[row.request_id]]
        kept = text[row.position : row.position + row.num_accepted]
        assert row.draft_tokens[: len(kept)] == kept, "what was verified is what is recorded"
    assert {row.origin for row in recorded(got)} == {"hit", "fast", "jit"}


@pytest.mark.full
@pytest.mark.parametrize("batch", [1, 2])
def test_an_eagle3_head_reads_the_features_of_the_round_before(
    monkeypatch: pytest.MonkeyPatch, started: Started, batch: int
) -> None:
    """They are copied before the next verification, which runs by the time the head is asked, overwrites them."""
    prompts = ["one two three one two three one two", "What is 1 + 1?"][:batch]
    params = [SamplingParams(max_tokens=24, temperature=i, seed=i, ignore_eos=True) for i in range(batch)]

    def answered() -> Any:
        options = {**OPTIONS, "max_batch": batch, "mode": "async", "k": 3, "f": 3}
        with LLM(str(demo.TARGET), None, "eagle3", **options) as llm:
            return llm.run(prompts, params)

    Backends.installed(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "prepare", lambda *given: None)
        expected = answered()
    got = answered()
    assert started.started > 0 and expected.metrics.cache_hit_rate > 0.3
    assert ids(got) == ids(expected) and recorded(got) == recorded(expected)


def test_a_hit_round_starts_after_two_reads_and_before_the_draft_is_told(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    """The outcome, and whether all hit; the ordinary way reads the tree's outcomes too and asks the worker."""
    Backends.installed(monkeypatch)
    looked_up = []
    find = TorchKernels.find_branch
    monkeypatch.setattr(TorchKernels, "find_branch", lambda *given: looked_up.append(1) or find(*given))
    result = generated(tiny_pair, SamplingParams(max_tokens=60, ignore_eos=True), PROMPTS[:1], max_batch=1)
    assert len(looked_up) >= started.started  # by the draft's device
    assert started.before_start and all(done == ["read", "read"] for done in started.before_start)
    hits = [row.cache_hit for row in recorded(result)][1:]
    assert started.started >= hits.count(True) - 4  # but for those of the last k + 1 tokens, where the length decides


@pytest.mark.full
def test_nothing_is_started_for_requests_that_end(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    whole = ids(generated(tiny_pair, SamplingParams(max_tokens=40, ignore_eos=True)))
    params = [
        SamplingParams(max_tokens=40, ignore_eos=True, stop_token_ids=[text[12 + i]]) for i, text in enumerate(whole)
    ]
    Backends.installed(monkeypatch)
    expected = waited(tiny_pair, monkeypatch, params)
    got = generated(tiny_pair, params)
    assert started.started > 0
    assert ids(got) == ids(expected) and recorded(got) == recorded(expected)
    assert [o.finish_reason for o in got.outputs] == ["stop"] * len(PROMPTS)


@pytest.mark.full
def test_with_few_blocks_requests_are_put_off_as_ever(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    small = {"num_blocks": 14, "block_size": 4, "max_model_len": 47}
    params = SamplingParams(max_tokens=30, ignore_eos=True)
    expected = generated(tiny_pair, params, **small)
    Backends.installed(monkeypatch)
    got = generated(tiny_pair, params, **small)
    assert ids(got) == ids(expected) and started.started > 0


def test_requests_may_come_and_go_while_a_round_is_prepared(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    alone = ids(generated(tiny_pair, params))
    Backends.installed(monkeypatch)
    with opened(tiny_pair) as llm:
        engine = llm._engine
        first, second = (engine.submit(PROMPTS[i], params, seed=0) for i in (0, 1))
        kept = {first: engine.sequence(first)}
        for _ in range(4):
            engine.step()
        cut = engine.cancel(second)
        assert cut is not None and cut.output_ids == alone[1][: len(cut.output_ids)]
        for _ in range(2):
            engine.step()
        third = engine.submit(PROMPTS[2], params, seed=0)
        kept[third] = engine.sequence(third)
        while engine.has_work:
            assert all(sequence.request_id != second for sequence in engine.step())
        assert started.started > 0
        assert kept[first].output_ids == alone[0] and kept[third].output_ids == alone[2]
        assert llm.num_free_blocks == engine._blocks.num_usable


@pytest.mark.parametrize("fault", ["asked", pytest.param("looked up", marks=pytest.mark.full)])
def test_a_draft_that_fails_in_any_step_leaves_exact_text(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started, fault: str
) -> None:
    """Also one that fails when its round is started already."""
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    expected = ids(generated(tiny_pair, params))
    Backends.installed(monkeypatch)
    handle, look_up = DraftWorker.handle, DraftWorker.look_up

    def failing(worker: DraftWorker, message: Any) -> Any:
        if fault == "asked" and started.started > 2 and isinstance(message, RoundMessage):
            raise RuntimeError("broken")
        return handle(worker, message)

    def failing_lookup(worker: DraftWorker, lookup: Any) -> Any:
        if fault == "looked up" and started.started > 2:
            raise RuntimeError("broken")
        return look_up(worker, lookup)

    monkeypatch.setattr(DraftWorker, "handle", failing)
    monkeypatch.setattr(DraftWorker, "look_up", failing_lookup)
    with pytest.warns(RuntimeWarning, match="broken"):
        got = generated(tiny_pair, params)
    assert ids(got) == expected and started.started > 2


def test_a_draft_without_numbers_voids_what_is_prepared(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    expected = ids(generated(tiny_pair, params))
    Backends.installed(monkeypatch)
    with opened(tiny_pair) as llm:
        engine = llm._engine
        sequences = [engine.sequence(engine.submit(prompt, params, seed=0)) for prompt in PROMPTS]
        while not started.started:
            engine.step()
        with torch.inference_mode():
            for tensor in engine.proposer.link._worker._drafter.runner.cache.layers:
                tensor.fill_(torch.nan)
        with pytest.warns(RuntimeWarning, match="NaN or infinity"):
            engine.step()
        while engine.has_work:
            engine.step()
        assert [sequence.output_ids for sequence in sequences] == expected


def test_where_few_rounds_hit_none_is_prepared() -> None:
    """Until more do again; of rounds without a previous outcome nothing is learnt."""
    preparing = Preparing()
    assert preparing.pays(1)
    for _ in range(20):
        preparing.saw(False)
        preparing.saw(None)
    assert not preparing.pays(1)
    with preparing.always():
        assert preparing.pays(1)
    for _ in range(5):
        preparing.saw(True)
    assert preparing.pays(1)


def test_the_shorter_way_to_a_hit_round_is_taken() -> None:
    """Whatever capturing graphs took at first; for each batch by itself, and now and then the other one is tried."""
    preparing = Preparing()

    def round_of(rows: int, prepared_s: float, ordinary_s: float) -> bool:
        prepares = preparing.pays(rows)
        if prepares:
            preparing.prepared()
        preparing.ended(rows, prepared_s if prepares else ordinary_s, was_prepared=prepares, has_hit=True)
        return prepares

    assert round_of(1, 0.9, 0.006)
    rounds = [round_of(1, 0.004, 0.006) for _ in range(ORDINARY_AGAIN + 40)]
    assert len(rounds) - 6 <= rounds.count(True) < len(rounds)
    rounds = [round_of(4, 0.002, 0.001) for _ in range(2 * AGAIN)]
    assert rounds[:FIRST] == [True] * FIRST and rounds.count(True) <= 3 * FIRST
    assert round_of(1, 0.004, 0.006)
    for _ in range(AGAIN - 1):  # misses teach nothing, and neither does a round after which the engine stood still
        preparing.ended(1, 0.0, was_prepared=False, has_hit=False)
        preparing.ended(1, None, was_prepared=False, has_hit=True)
    assert preparing.pays(1)


def _always(found: Found) -> Found:
    return replace(found, answered=torch.ones_like(found.hit))


def _another_branch(found: Found) -> Found:
    return replace(found, branch=(found.branch + 1) % 4)


@pytest.mark.full
@pytest.mark.parametrize("planted", [_always, _another_branch])
def test_a_wrong_lookup_is_found(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started, planted: Any
) -> None:
    """The target decides all the same; the records show what it was given."""
    params = SamplingParams(max_tokens=24, ignore_eos=True)
    Backends.installed(monkeypatch)
    expected = waited(tiny_pair, monkeypatch, params)
    found = SpeculationCache.found

    def wrong(cache: SpeculationCache, *given: Any, **named: Any) -> Found | None:
        right = found(cache, *given, **named)
        return None if right is None else planted(right)

    monkeypatch.setattr(SpeculationCache, "found", wrong)
    got = generated(tiny_pair, params)
    assert started.started > 0
    assert ids(got) == ids(expected) and recorded(got) != recorded(expected)


def test_a_tree_that_was_begun_for_a_round_nobody_told_of_answers_nothing(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    """Ctrl-C between the start of a round and the draft's being told: the tree before is overwritten by then."""
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    expected = ids(generated(tiny_pair, params, PROMPTS[:1]))
    Backends.installed(monkeypatch)
    tell, interrupted = Rounds.tell, list[int]()

    def leaving(rounds: Rounds, flight: Flight) -> None:
        if started.started in (2, 4) and started.started not in interrupted:
            interrupted.append(started.started)
            raise KeyboardInterrupt
        tell(rounds, flight)

    monkeypatch.setattr(Rounds, "tell", leaving)
    with opened(tiny_pair, max_batch=1) as llm:
        engine = llm._engine
        sequence = engine.sequence(engine.submit(PROMPTS[0], params, seed=0))
        while engine.has_work:
            with suppress(KeyboardInterrupt):
                engine.step()
        assert interrupted == [2, 4] and sequence.output_ids == expected[0]
        rows = [row for one in engine.take_trace().rounds for row in one.sequences]
    assert [row.origin for row in rows].count("jit") >= 3
