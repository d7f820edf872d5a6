"""Candidates on the virtual clock: what each would give on the machine, by the outcomes that were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssd_lab.decoding.fan_out import HitLaw
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import HardwareProfile, OutcomeModel, RoundModel, Simulation, simulate
from ssd_lab.simulate.clock import MissCost
from ssd_lab.simulate.outcome_model import acceptance_by_place
from ssd_lab.strategies import SequenceStrategy, registry
from ssd_lab.trace import RequestRecord, SequenceRound, Trace, compute_metrics
from ssd_lab.trace.outcomes import outcome_samples
from ssd_lab.tune.candidates import LOOKAHEADS, Candidate, variants, with_coefficients
from ssd_lab.tune.corrections import Coefficients, Confidence
from ssd_lab.tune.lookahead_replay import replay_lookahead
from ssd_lab.tune.lookup_replay import Otherwise, replay_lookup
from ssd_lab.tune.tuning import Scored

COARSE_ROUNDS, FINE_ROUNDS = 250, 2000
FINE_COUNT = 8  # of the best candidates, drawn anew with more rounds
VARIED = 4  # of the best trees, tried with other fallbacks too
_USUAL_EXPONENT = 0.6  # of the law of ranks, where too few misses were recorded to fit one


@dataclass(frozen=True)
class TuneMachine:
    """alone: where target and draft take turns; beside: where both work at once; plain: overhead of a round without a
    draft model. miss_cost: as `ssd_lab.simulate` takes it. with_head: where an EAGLE3 head drafts.
    """

    alone: HardwareProfile
    beside: HardwareProfile
    plain_overhead_s: float
    miss_cost: MissCost
    with_head: HardwareProfile | None = None


@dataclass(frozen=True)
class Scorer:
    """Scores candidates for a batch. requests: the texts that lookups are replayed on. coefficients: what Saguaro
    sampling does there (None: it is not tried, as at temperature 0, where it changes nothing). confidence: what
    spending branches by confidence does, drafted: rounds of a draft model's tokens of the longest lookahead, head: how
    rounds end that an EAGLE3 head drafted (None, or none: what needs them is not tried).
    """

    model: OutcomeModel
    machine: TuneMachine
    requests: Sequence[RequestRecord]
    batch: int
    coefficients: Coefficients | None = None
    confidence: Confidence | None = None
    drafted: Sequence[SequenceRound] = ()
    head: OutcomeModel | None = None

    def best_first(self, candidates: Sequence[Candidate]) -> list[Scored]:
        """All of them, and variants of the best trees and chains, the most predicted tokens per second first; the best
        are drawn twice, the second time longer.
        """
        scored = self._scored(candidates, COARSE_ROUNDS)
        best = [
            one.candidate
            for strategy in ("async_tree", "sync_chain")
            for one in [own for own in scored if own.candidate.strategy == strategy][:VARIED]
        ]
        longest = [one for one in candidates if one.fields == {"k": max(LOOKAHEADS)} and one not in best]
        scored += self._scored([other for one in [*best, *longest] for other in variants(one)], COARSE_ROUNDS)
        scored.sort(key=_slowness)
        if self.coefficients is not None:
            trees = [one.candidate for one in scored if one.candidate.strategy == "async_tree"][:VARIED]
            scored += self._scored([other for tree in trees for other in with_coefficients(tree)], COARSE_ROUNDS)
            scored.sort(key=_slowness)
        finer = self._scored([one.candidate for one in scored[:FINE_COUNT]], FINE_ROUNDS)
        return sorted(finer + scored[FINE_COUNT:], key=_slowness)

    def _scored(self, candidates: Sequence[Candidate], rounds: int) -> list[Scored]:
        return sorted((one for c in candidates if (one := self.score(c, rounds)) is not None), key=_slowness)

    def score(self, candidate: Candidate, rounds: int) -> Scored | None:
        """None if the virtual clock cannot time such a candidate, or there is no text for it."""
        try:
            found = self._simulated(candidate, max(50, rounds // self.batch))
        except ConfigError:
            return None
        return Scored(
            candidate,
            predicted_tokens_per_second=found.tokens_per_second,
            tokens_per_round=found.tokens_per_round,
            hit_rate=found.hit_rate,
        )

    def _simulated(self, candidate: Candidate, rounds: int) -> Simulation:
        machine = self.machine
        if candidate.is_lookup:
            config = registry.config(candidate.strategy, candidate.fields)
            assert isinstance(config, SequenceStrategy)
            replayed = replay_lookup(config, self.requests, self.batch)
            overhead_s = machine.plain_overhead_s + replayed.call_s * self.batch
            profile = machine.alone.model_copy(update={"overhead_s": overhead_s})
            return simulate(replayed.trace, profile, strategy="free")
        if candidate.strategy == "cascade":
            return self._cascade(candidate)
        if candidate.fields.get("dynamic_lookahead"):
            if not self.drafted:
                raise ConfigError("no rounds of that lookahead were recorded to choose shorter ones for")
            drawn = replay_lookahead(
                self.drafted, machine.alone, most=candidate.fields["k"], batch=self.batch, count=rounds
            )
            return simulate(drawn, machine.alone, strategy="sync")
        if candidate.strategy == "eagle3":
            if self.head is None or machine.with_head is None:
                raise ConfigError("no EAGLE3 head was tried")
            return simulate(self.head, machine.with_head, scenario=candidate.scenario(self.batch, rounds))
        profile = machine.beside if candidate.overlaps else machine.alone
        model = self.model
        if candidate.by_confidence:
            if self.confidence is None:
                raise ConfigError("nothing is known of what the draft thought of its rounds")
            model = self.confidence.applied(model, candidate)
        if "saguaro_c" in candidate.fields and self.coefficients is not None:
            model = self.coefficients.applied(model, candidate)
        return simulate(model, profile, scenario=candidate.scenario(self.batch, rounds), miss_cost=machine.miss_cost)

    def _cascade(self, candidate: Candidate) -> Simulation:
        config: Any = registry.config(candidate.strategy, candidate.fields)
        chain = Otherwise(config.least, config.second.k, self.model.jit)
        replayed = replay_lookup(config.first, self.requests, self.batch, chain)
        overhead_s = self.machine.alone.overhead_s + replayed.call_s * self.batch
        return simulate(replayed.trace, self.machine.alone.model_copy(update={"overhead_s": overhead_s}))


def _slowness(scored: Scored) -> float:
    return -scored.predicted_tokens_per_second


def drafted_rounds(trace: Trace, k: int) -> list[SequenceRound]:
    """The rounds of k tokens that a draft model drafted, before or while the target verified; those that the end of a
    text cut short are left out.
    """
    return [
        own
        for one in trace.rounds
        for own in one.sequences
        if own.origin in ("draft", "jit", "hit")
        and len(own.draft_tokens) == k
        and own.num_emitted == own.num_accepted + 1
    ]


def head_model(trace: Trace | None) -> OutcomeModel | None:
    """How an EAGLE3 head's synchronous rounds end; None without enough of them. Nothing is looked up there, so its law
    of ranks is any.
    """
    acceptance = () if trace is None else acceptance_by_place(outcome_samples(trace))
    law = HitLaw(_USUAL_EXPONENT)
    own = RoundModel(acceptance, law, law) if acceptance else None
    return None if own is None else OutcomeModel(own, own, own, source="rounds of the EAGLE3 head")


def outcome_model(trace: Trace) -> OutcomeModel:
    """Fitted to a trace with recovery ranks; where too few missed for a law of ranks, the share that did and a usual
    exponent. Raises ConfigError if nothing was drafted.
    """
    try:
        return OutcomeModel.from_trace(trace)
    except ConfigError:
        acceptance = compute_metrics(trace).acceptance_rate
        if acceptance is None:
            raise
    ranks = [s.rank for s in outcome_samples(trace) if s.rank is not None]
    missed = sum(rank > 0 for rank in ranks) / len(ranks) if ranks else 1.0 - acceptance
    law = HitLaw(_USUAL_EXPONENT, missed)
    own = RoundModel((acceptance,), law, law)
    return OutcomeModel(own, own, replace(own, acceptance=(0.0,)), source="mean rates: too few misses to fit a law")
