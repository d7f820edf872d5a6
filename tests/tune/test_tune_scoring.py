"""Candidates, replays and scores: what is known to be best on a made-up machine is ranked first."""

from __future__ import annotations

import dataclasses
import random
import shlex
from typing import Any

import numpy as np
import pytest
from trace_samples import sequence_round

import ssd_lab
from ssd_lab.common.parsing import merged, parse_assignments
from ssd_lab.decoding.fan_out import HitLaw
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import AffineTime, HardwareProfile, OutcomeModel
from ssd_lab.simulate.confidence_replay import DraftConfidence
from ssd_lab.simulate.workload import workload_of_rounds
from ssd_lab.strategies import registry
from ssd_lab.trace import RequestRecord, RoundRecord, SequenceRound, Trace
from ssd_lab.trace.outcomes import halves
from ssd_lab.tune.candidates import BUNDLED_HEAD, Candidate, coarse_grid, grid, variants
from ssd_lab.tune.corrections import Confidence
from ssd_lab.tune.full_grid import simulated_grid
from ssd_lab.tune.lookup_replay import Otherwise, replay_lookup
from ssd_lab.tune.scoring import Scorer, TuneMachine, head_model, outcome_model


def machine(verify: Any = 1.0, draft: float = 0.1, tree: float = 0.1, **beside: Any) -> TuneMachine:
    alone = HardwareProfile(name="test", source="hand", verify_s=verify, draft_step_s=draft, draft_tree_step_s=tree)
    return TuneMachine(alone, alone.model_copy(update=beside), 0.0, "full")


def recorded(ranks: list[int], *, k: int = 3, requests: int = 2) -> Trace:
    """Rounds that accept two of three and recover at these ranks, for two requests in turn."""
    rounds = []
    for index, rank in enumerate(ranks):
        one = sequence_round(2, k=k, request_id=index % requests, origin="jit", cache_hit=False)
        rounds.append(RoundRecord(index, index, index + 1, [dataclasses.replace(one, recovery_rank=rank)]))
    return Trace({}, rounds=rounds)


GOOD_DRAFT = OutcomeModel.of(0.9, HitLaw(1.0, 0.2))
RANKS = [0, 0, 0, 1, 0, 2, 0, 5, 0, 11] * 8


def scorer(own: TuneMachine, model: OutcomeModel = GOOD_DRAFT, batch: int = 1) -> Scorer:
    return Scorer(model, own, [], batch)


def best(own: TuneMachine, model: OutcomeModel = GOOD_DRAFT, batch: int = 1) -> Candidate:
    return scorer(own, model, batch).best_first(grid(recorded(RANKS)))[0].candidate


def test_every_candidate_is_one_that_runs_and_none_is_there_twice():
    candidates = grid(recorded(RANKS))
    everything = [*candidates, *(other for one in candidates for other in variants(one)), *coarse_grid(BUNDLED_HEAD)]
    for candidate in everything:
        registry.config(candidate.strategy, candidate.fields)
    names = [repr((one.strategy, sorted(one.fields.items(), key=str))) for one in candidates]
    assert len(set(names)) == len(names)
    strategies = {one.strategy for one in candidates}
    assert {"autoregressive", "sync_chain", "async_tree", "prompt_lookup", "suffix_tree"} <= strategies
    assert {"cascade", "eagle3"} <= {one.strategy for one in everything}
    assert any(one.fields.get("dynamic_lookahead") for one in everything)
    kinds = {one.fields["fan_out"]["kind"] for one in everything if "fan_out" in one.fields}
    assert kinds == {"geometric", "adaptive"}


def test_a_field_that_this_version_lacks_is_no_candidate():
    assert Candidate("async_tree", {"k": 2}).allowed
    assert not Candidate("async_tree", {"k": 2, "not_a_field": 1}).allowed
    assert not Candidate("no_such_strategy").allowed


def test_the_command_line_of_a_candidate_parses_back_into_its_fields():
    everything = grid(recorded(RANKS), head="some/head")
    for candidate in [*everything, *(other for one in everything for other in variants(one))]:
        words = shlex.split(candidate.command("PROMPT", []))
        assert words[:5] == ["ssd-lab", "run", "PROMPT", "-s", candidate.strategy]
        own, settings = {}, []
        for option, value in zip(words[5::2], words[6::2], strict=True):
            if option == "--set":
                settings.append(value)
            else:
                own |= parse_assignments([f"{option.removeprefix('--')}={value}"])
        parsed = registry.config(candidate.strategy, merged(own, settings))
        assert parsed == registry.config(candidate.strategy, candidate.fields)


def test_the_python_call_of_a_candidate_names_its_fields():
    call = Candidate("sync_chain", {"k": 3}).call({"temperature": 0.7})
    assert call == "ssd_lab.run(prompts, strategy='sync_chain', k=3, temperature=0.7)"


def test_where_drafting_hides_behind_verification_async_wins():
    assert best(machine(verify=1.0, draft=0.15, tree=0.12)).strategy == "async_tree"


@pytest.mark.full
def test_where_both_slow_each_other_down_the_chain_wins():
    slowed = {"verify_s": AffineTime(base_s=3.0), "draft_tree_step_s": AffineTime(base_s=0.4)}
    assert best(machine(verify=1.0, draft=0.1, tree=0.1, **slowed)).strategy == "sync_chain"


@pytest.mark.full
def test_where_rows_are_dear_and_drafting_too_nothing_is_speculated():
    own = machine(verify=AffineTime(base_s=0.0, per_row_s=1.0), draft=0.5, tree=0.5)
    assert best(own).strategy == "autoregressive"


@pytest.mark.full
def test_a_useless_draft_is_not_used():
    own = machine(verify=AffineTime(base_s=1.0, per_row_s=0.05))
    assert best(own, OutcomeModel.of(0.01, HitLaw(0.1), fast_acceptance=0.0)).strategy == "autoregressive"


def test_a_longer_lookahead_wins_with_a_better_draft():
    def k_of(acceptance: float) -> int:
        ranked = scorer(machine(draft=0.05), OutcomeModel.of(acceptance, HitLaw(1.0))).best_first(
            [Candidate("sync_chain", {"k": k}) for k in (1, 2, 4, 8)]
        )
        return ranked[0].candidate.fields["k"]

    assert k_of(0.98) == 8
    assert k_of(0.15) == 1


def test_scores_are_those_of_the_closed_form():
    scored = scorer(machine(verify=1.0, draft=0.1)).score(Candidate("sync_chain", {"k": 4}), 4000)
    assert scored is not None
    assert scored.predicted_tokens_per_second == pytest.approx(sum(0.9**i for i in range(5)) / 1.4, rel=0.02)


def test_lookups_are_left_out_without_a_text():
    assert scorer(machine()).score(Candidate("prompt_lookup"), 100) is None


def request(prompt: list[int], tokens: list[int], number: int = 0) -> RequestRecord:
    return RequestRecord(number, None, prompt, tokens, "", "length", 0.0, 0.0, 1.0)


def test_a_text_that_repeats_itself_is_looked_up_and_one_that_does_not_is_not():
    strategy: Any = registry.config("prompt_lookup", {"k": 4})
    again = replay_lookup(strategy, [request([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])], 1).trace
    rounds = [one.sequences[0] for one in again.rounds]
    assert sum(one.num_emitted for one in rounds) == 12
    assert [one.num_accepted for one in rounds] == [0, 4, 4, 1]  # nothing, 2 to 5, 1 to 4, and the 6 that ends it
    never = replay_lookup(strategy, [request([1, 2, 3], list(range(10, 20)))], 1).trace
    assert [one.sequences[0].num_emitted for one in never.rounds] == [1] * 10


@pytest.mark.parametrize("name", ["prompt_lookup", "suffix_tree"])
def test_a_replay_has_the_rounds_of_the_real_run(name: str, tiny_pair):
    text = "one two three one two three one two"
    options: dict[str, Any] = {"target": tiny_pair.target, "dtype": "float32", "max_tokens": 40, "progress": False}
    real = ssd_lab.run(text, strategy=name, threads=1, **options).trace
    strategy: Any = registry.config(name, {})
    replayed = replay_lookup(strategy, real.requests, 1).trace
    ours = [(s.position, s.draft_tokens, s.num_emitted) for one in replayed.rounds for s in one.sequences]
    theirs = [(s.position, s.draft_tokens, s.num_emitted) for one in real.rounds for s in one.sequences]
    # near the end of a text the engine drafts no more than may still be generated
    assert [place for place, *_ in ours] == [place for place, *_ in theirs]
    assert ours[:-3] == theirs[:-3]


def test_a_batch_of_lookups_walks_its_texts_side_by_side():
    strategy: Any = registry.config("prompt_lookup", {})
    texts = [request([1], [2, 3, 4, 5], 0), request([1], [6, 7], 1), request([1], [8, 9], 2)]
    rounds = replay_lookup(strategy, texts, 2).trace.rounds
    assert [[s.request_id for s in one.sequences] for one in rounds] == [[0, 1], [0, 1], [0, 2], [0, 2]]


def test_few_misses_still_give_a_model_of_outcomes():
    perfect = outcome_model(recorded([0] * 30))
    assert perfect.jit.rejected.scale == 0.0
    assert perfect.jit.acceptance_at(0) == pytest.approx(2 / 3)
    with pytest.raises(ConfigError):
        outcome_model(Trace({}))


def test_a_cascade_drafts_by_model_only_where_the_text_gave_too_little():
    strategy: Any = registry.config("prompt_lookup", {"k": 4})
    model = GOOD_DRAFT.jit
    never, always = (dataclasses.replace(model, acceptance=(rate,)) for rate in (0.0, 1.0))
    text = [request([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])]
    for chain, lengths in ((never, [1, 5, 1, 1, 1, 1]), (always, [4, 3, 3])):
        replayed = replay_lookup(strategy, text, 1, Otherwise(2, 3, chain)).trace
        rounds = [one.sequences[0] for one in replayed.rounds]
        assert [one.num_emitted for one in rounds] == lengths
        rows = [row for rows in workload_of_rounds(replayed.rounds, {}) for row in rows]
        for own, row in zip(rounds, rows, strict=True):  # a lookup takes no draft step
            assert own.origin in ("draft", "custom")
            assert row.steps == (3 if own.origin == "draft" else 0)
            assert row.verify_rows == len(own.draft_tokens) + 1
    own = machine(verify=1.0, draft=0.25)
    scored = Scorer(GOOD_DRAFT, own, [request([1], list(range(2, 300)))], 1)
    found = scored.score(Candidate("cascade", {"second": {"strategy": "sync_chain", "k": 4}}), 100)
    assert found is not None  # nothing repeats, so it is the chain
    assert found.predicted_tokens_per_second == pytest.approx(sum(0.9**i for i in range(5)) / 2, rel=0.15)


def chains(acceptance: float, count: int = 400, k: int = 8) -> list[SequenceRound]:
    generator = random.Random(1)
    found = []
    for _ in range(count):
        accepted = next((i for i in range(k) if generator.random() >= acceptance), k)
        found.append(sequence_round(accepted, k=k, origin="jit"))
    return found


@pytest.mark.parametrize(("acceptance", "step"), [(0.95, 0.05), (0.6, 0.1), (0.3, 0.4)])
def test_a_lookahead_chosen_while_running_is_about_as_fast_as_the_best_fixed_one(acceptance: float, step: float):
    own = machine(draft=step)
    scored = Scorer(OutcomeModel.of(acceptance, HitLaw(1.0)), own, [], 1, drafted=chains(acceptance))
    found = scored.score(Candidate("sync_chain", {"k": 8, "dynamic_lookahead": True}), 3000)
    best = max(sum(acceptance**i for i in range(k + 1)) / (1 + k * step) for k in range(1, 9))
    assert found is not None
    assert found.predicted_tokens_per_second == pytest.approx(best, rel=0.06)
    assert scorer(own).score(Candidate("sync_chain", {"k": 8, "dynamic_lookahead": True}), 100) is None


def test_a_head_is_priced_by_its_own_rounds_and_times():
    own = dataclasses.replace(machine(draft=0.5), with_head=machine(draft=0.1).alone)
    own = dataclasses.replace(own, with_head=own.with_head.model_copy(update={"head_step_s": AffineTime(base_s=0.1)}))
    trace = Trace({}, rounds=[RoundRecord(i, i, i + 1, [one]) for i, one in enumerate(chains(0.8, 2000))])
    scored = Scorer(GOOD_DRAFT, own, [], 1, head=head_model(trace)).score(Candidate("eagle3", {"k": 4}), 4000)
    assert scored is not None
    assert scored.predicted_tokens_per_second == pytest.approx(sum(0.8**i for i in range(5)) / 1.4, rel=0.03)
    assert scorer(own).score(Candidate("eagle3", {"k": 4}), 100) is None
    assert head_model(None) is None


def test_branches_by_confidence_miss_as_much_less_as_in_the_replay():
    """Planted: of 200 rounds every second has its recovery token at the one place where the draft was unsure."""
    k, candidates = 3, 64
    rounds, confidences, probs = [], [], []
    for index in range(201):
        accepted = index % k
        one = dataclasses.replace(sequence_round(accepted, k=k, origin="jit"), recovery_rank=3)
        rounds.append(RoundRecord(index, index, index + 1, [one]))
        confidences.append([0.02 if place == accepted else 0.98 for place in range(k)])
        probs.append([[0.2] * 5 + [1e-4] * (candidates - 5)] * (k + 1))
    trace = Trace({}, rounds=rounds)
    opinions = DraftConfidence(1.0, np.array(confidences[:-1], np.float32), np.array(probs[:-1], np.float32))
    confidence = Confidence(trace, opinions, k)
    tree = Candidate("async_tree", {"k": k, "fan_out": {"kind": "adaptive", "budget": 8}})
    assert tree.by_confidence and tree.mean_fan_out == 2
    changed = confidence.applied(GOOD_DRAFT, tree)
    assert changed.hit.rejected.scale < 0.2 * GOOD_DRAFT.hit.rejected.scale
    assert changed.hit.acceptance == GOOD_DRAFT.hit.acceptance
    assert Scorer(GOOD_DRAFT, machine(), [], 1).score(tree, 100) is None
    assert Scorer(GOOD_DRAFT, machine(), [], 1, confidence=confidence).score(tree, 100) is not None


def test_halves_share_no_request():
    first, second = halves(recorded(RANKS))
    ids = [{s.request_id for one in part.rounds for s in one.sequences} for part in (first, second)]
    assert ids == [{0}, {1}]
    with pytest.raises(ConfigError, match="at least two"):
        halves(recorded(RANKS, requests=1))


def test_a_full_grid_finds_out_a_winner_that_is_not_the_best():
    candidates = [Candidate("autoregressive"), *(Candidate("sync_chain", {"k": k}) for k in (1, 4, 8))]
    judge = scorer(machine(draft=0.05))
    good = simulated_grid(judge, judge.best_first(candidates)[0].candidate, candidates)
    assert good.share_of_best == pytest.approx(1.0, abs=0.02)
    bad = simulated_grid(judge, candidates[0], candidates)
    assert bad.share_of_best < 0.5 and bad.best.startswith("sync_chain")
