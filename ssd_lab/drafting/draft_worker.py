"""The draft's side of a round: answer with the next draft tokens, then prepare for the next outcome."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ssd_lab.common.device_guard import door
from ssd_lab.drafting.batch_control import ControlReader, DraftRound
from ssd_lab.drafting.draft_settings import DraftSettings
from ssd_lab.drafting.drafter import Drafter, Wish
from ssd_lab.drafting.fan_out_control import FanOutControl
from ssd_lab.drafting.lookahead_control import LookaheadControl
from ssd_lab.drafting.quick_guesses import n_gram_guesses, random_guesses
from ssd_lab.drafting.round_log import RoundLog, seconds
from ssd_lab.drafting.speculation_cache import Entry, SpeculationCache
from ssd_lab.errors import NonFiniteLogitsError
from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.execution.stopwatch import MOST_SPANS, CudaStopwatch, Span, Stopwatch
from ssd_lab.learning.fallback_choice import FallbackKind, FallbackRule, FixedChoice
from ssd_lab.links.messages import (
    ControlMessage,
    KeptMessage,
    Message,
    PrefillMessage,
    RememberMessage,
    RestoreMessage,
)
from ssd_lab.rounds.drafted import Drafted
from ssd_lab.rounds.drawing import Drawing
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.recorded_tree import RecordedTree


@dataclass(frozen=True)
class _Path:
    """What answers a row: `origin` as in the trace, and the branch it takes, if any."""

    origin: str
    entry: Entry | None = None


class DraftPlan(DraftSettings):
    """The settings, and the worker that goes by them."""

    def make_worker(self, drafter: Drafter) -> DraftWorker:
        """A worker with this plan."""
        return DraftWorker(drafter, self)


_ON_ITS_DEVICE = door(lambda worker: worker._drafter.device)


class DraftWorker:
    """Holds the drafter, the speculation cache and what learns; `handle` answers a message, `background` works
    ahead.
    """

    def __init__(self, drafter: Drafter, plan: DraftSettings) -> None:
        self._drafter, self._plan = drafter, plan
        self._cache = SpeculationCache()
        self._fan_out = None if plan.fan_out is None else FanOutControl(plan.fan_out)
        self._rule = FixedChoice("jit") if plan.fallback is None else plan.fallback.chooser()
        self._lookahead = LookaheadControl(plan.lookahead, plan.k, overlapped=plan.fan_out is not None)
        self._keeps_probs = plan.record or self._lookahead.learns
        self._k = self._lookahead.choose()  # draft tokens of the next round; a tree's branches have as many
        self._batch = ControlReader()
        self._pending: tuple[DraftRound, Proposal] | None = None
        self._log: RoundLog | None = None
        self._tree: RecordedTree | None = None
        self._activities: list[Span] = []
        self._remembered = self._learned
        self._watch = CudaStopwatch(drafter.device) if drafter.device.type == "cuda" else Stopwatch()

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def handle(self, message: Message) -> Proposal | None:
        """Do what the message asks; a round is answered with draft tokens for every row."""
        start = self._watch.start()
        if isinstance(message, PrefillMessage):
            self._drafter.prefill(message)
            self._note("prefill", start)
            return None
        if isinstance(message, ControlMessage):
            self._batch.read(message)
            return None
        if isinstance(message, KeptMessage):
            return None  # a chain's K/V stands where it belongs
        if isinstance(message, RememberMessage):
            self._remembered = copy.deepcopy(self._learned)
            return None
        if isinstance(message, RestoreMessage):
            self._learned = copy.deepcopy(self._remembered)
            self._pending = self._log = self._tree = None
            self._activities.clear()
            return None
        asked = self._batch.round(message)
        self._keep_for_later(asked)
        predicted = self._learn(asked)
        reply = self._answer(asked, predicted)
        self._cache.keep_only(message.away.keys() - set(asked.request_ids))
        if self._fan_out is not None:
            self._pending = (asked, reply)
        return reply

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def background(self) -> None:
        """Prepare for the next outcome of the round that was answered last."""
        if self._pending is None or self._fan_out is None:
            return
        start = self._watch.start()
        asked, reply = self._pending
        self._pending = None
        k = reply.tokens.shape[1]
        self._k = depth = self._lookahead.choose()
        sampled = [setting[0] != 0 for setting in asked.rows.sampling]
        hits = [bool(hit) for hit in reply.cache_hits]
        fan_out = self._fan_out.place(asked.request_ids, hits, sampled, k)
        shape = self._fan_out.shape(k, depth)
        tree = self._drafter.tree(asked, reply.tokens, fan_out, shape, self._wish(True, depth))
        self._cache.store(asked.request_ids, tree)
        span = self._note("tree", start)
        if self._log is not None:
            self._log.ahead = span
        if self._plan.record and reply.token_probs is not None:
            self._tree = RecordedTree.of(asked.request_ids, reply.tokens, reply.token_probs, tree)

    @property
    def _learned(self) -> tuple[FanOutControl | None, FallbackRule, LookaheadControl, int]:
        """All that rounds teach."""
        return self._fan_out, self._rule, self._lookahead, self._k

    @_learned.setter
    def _learned(self, state: tuple[FanOutControl | None, FallbackRule, LookaheadControl, int]) -> None:
        self._fan_out, self._rule, self._lookahead, self._k = state

    def _keep_for_later(self, asked: DraftRound) -> None:
        """What was prepared for sequences that are away now."""
        for request_id, (accepted, token) in asked.message.away.items():
            prepared = self._cache.prepared(request_id)
            if self._fan_out is None or prepared is None or self._cache.kept(request_id) is not None:
                continue
            predicted = self._fan_out.observe(request_id, prepared, accepted, token)
            self._cache.keep(request_id, accepted, token, predicted)

    def _learn(self, asked: DraftRound) -> list[float | None]:
        """From the previous round's outcome; returns how likely each row's hit was thought to be."""
        log, self._log = self._log, None
        if log is not None and self._plan.fallback is not None and self._plan.fallback.learns:
            measured = log.measured(asked)
            if measured is not None:
                self._rule.observe(measured)
        if log is not None and self._lookahead.learns:
            self._learn_lookahead(log, asked)
        if self._fan_out is None:
            return [None] * len(asked.rows)
        outcomes = zip(asked.request_ids, asked.num_accepted, asked.rows.last_tokens, strict=True)
        return [None if a is None else self._observe(self._fan_out, own, a, token) for own, a, token in outcomes]

    def _observe(self, fan_out: FanOutControl, request_id: int, num_accepted: int, token: int) -> float | None:
        """A row's outcome is known: learn from it, if its branches are those of the latest tree; returns how likely its
        hit was thought to be.
        """
        if (kept := self._cache.kept(request_id)) is not None:
            return kept.predicted
        prepared = self._cache.prepared(request_id)
        return None if prepared is None else fan_out.observe(request_id, prepared, num_accepted, token)

    def _learn_lookahead(self, log: RoundLog, asked: DraftRound) -> None:
        accepted = asked.accepted
        known = [row for row, own in enumerate(log.request_ids) if own in accepted]
        if asked.message.round_s is None or log.confidences is None or not known:
            return
        confidences = log.confidences.arrays()[0]
        waited_s = seconds(log.fallback)  # the target waits for a fallback, and for a synchronous draft
        self._lookahead.observe(
            log.shape,
            [confidences[row].tolist() for row in known],
            [accepted[log.request_ids[row]] for row in known],
            verify_s=max(asked.message.round_s - waited_s, 1e-6),
            draft_s=waited_s if self._fan_out is None else seconds(log.ahead),
        )

    def _answer(self, asked: DraftRound, predicted: list[float | None]) -> Proposal:
        """Prepared tokens for the hits, the fallback for the missed rows only."""
        if self._fan_out is None:
            self._k = self._lookahead.choose()
        paths, missed, kind = self._paths(asked)
        sampled = not asked.rows.all_greedy
        taken = [row for row, path in enumerate(paths) if path.entry is not None and path.entry.kept is None]
        taken += [row for row, path in enumerate(paths) if path.entry is not None and path.entry.kept is not None]
        quick = [row for row, path in enumerate(paths) if path.entry is None and path.origin == "fast"]
        drafted = [row for row, path in enumerate(paths) if path.entry is None and path.origin != "fast"]
        parts: list[Drafted] = []
        if taken:
            parts.append(self._taken([paths[row] for row in taken], sampled))
        fallback: Span | None = None
        if quick or drafted:
            start = self._watch.start()
            if quick:
                parts.append(self._guessed(asked, quick, sampled))
            if drafted:
                chains = self._drafter.chain(asked, drafted, self._k, self._wish(False, self._k))
                parts.append(self._with_distribution(chains, sampled))
            fallback = self._note(paths[(drafted or quick)[0]].origin, start)
        done = parts[0]
        if len(parts) > 1:
            order = sent([*taken, *quick, *drafted], self._drafter.device).argsort()
            done = Drafted.concatenated(parts).at(order)
        self._check_numbers(done)
        cache_hits: list[bool | None] = [
            None if self._fan_out is None or accepted is None else path.origin == "hit"
            for accepted, path in zip(asked.num_accepted, paths, strict=True)
        ]
        self._log = self._logged(asked, [asked.request_ids[row] for row in missed], kind, fallback, done)
        tree, activities, self._tree, self._activities = self._tree, self._activities, None, []
        return Proposal(
            tokens=done.tokens,
            num_drafted=[done.tokens.shape[1]] * len(paths),
            probs=done.probs,
            origins=[path.origin for path in paths],
            cache_hits=cache_hits,
            token_probs=done.token_probs if self._plan.record else None,
            previous_trees=[] if tree is None else [tree],
            activities=activities,
            predicted_hits=predicted,
            raw_probs=done.raw_probs,
        )

    def _paths(self, asked: DraftRound) -> tuple[list[_Path], list[int], FallbackKind | None]:
        """Each row's path; which rows missed; the fallback that answers all of them (None: not the same)."""
        if self._fan_out is None:
            return [_Path("draft")] * len(asked.request_ids), [], None
        outcomes = list(zip(asked.request_ids, asked.num_accepted, asked.rows.last_tokens, strict=True))
        found = [None if a is None else self._fitting(self._cache.find(own, a, token)) for own, a, token in outcomes]
        missed = [row for row, (_, a, _) in enumerate(outcomes) if a is not None and found[row] is None]
        kind = self._rule.choose(len(outcomes), len(missed)) if missed else None
        paths = [_Path("jit") if entry is None else _Path("hit", entry) for entry in found]
        if kind == "fast":
            source = "stale" if self._plan.fallback is None else self._plan.fallback.guesses
            for row in missed:
                own, accepted, _ = outcomes[row]
                stale = source == "stale" and accepted is not None
                nearest = None
                if stale and accepted is not None:
                    nearest = self._fitting(self._cache.find_nearest(own, accepted))
                if nearest is not None or not stale:
                    paths[row] = _Path("fast", nearest)
        if any(paths[row].origin != kind for row in missed):
            kind = None
        return paths, missed, kind

    def _fitting(self, entry: Entry | None) -> Entry | None:
        """The entry, if it has as many draft tokens as this round wants: one that was kept may be of a shorter tree."""
        short = entry is not None and entry.kept is not None and entry.kept.tokens.shape[1] < self._k
        return None if short else entry

    def _taken(self, paths: Sequence[_Path], sampled: bool) -> Drafted:
        """Prepared branches, those of the tree first. The ones taken for another outcome are certain guesses, whatever
        they were drawn from.
        """
        entries = [path.entry for path in paths if path.entry is not None]
        parts = [entry.kept.steps(self._k) for entry in entries if entry.kept is not None]
        if fresh := [(entry.row, entry.branch) for entry in entries if entry.kept is None]:
            if self._cache.tree is None:
                raise RuntimeError("the speculation cache has entries and no tree")
            places = sent(fresh, self._drafter.device)
            parts.insert(0, self._cache.tree.drafted.at(places[:, 0], places[:, 1]))
        parts = [self._with_distribution(part, sampled) for part in parts]
        drafted = Drafted.concatenated(parts) if len(parts) > 1 else parts[0]  # the target waits for this
        stale = [path.origin == "fast" for path in paths]
        if not any(stale):
            return drafted
        certain = sent(stale, self._drafter.device)
        probs, raw_probs = (
            None
            if given is None
            else torch.where(certain[:, None, None], _ones_on(drafted.tokens, self._vocab_size), given)
            for given in (drafted.probs, drafted.raw_probs)
        )
        token_probs = drafted.token_probs
        if token_probs is not None:
            token_probs = torch.where(certain[:, None], 1.0, token_probs)
        return Drafted(drafted.tokens, probs, token_probs, raw_probs)

    def _guessed(self, asked: DraftRound, rows: list[int], sampled: bool) -> Drafted:
        """Guessed without the draft model, for these rows."""
        device = self._drafter.device
        if asked.texts is not None:
            guessed = n_gram_guesses([asked.texts[row] for row in rows], self._k, device=device)
        else:
            seeds = [asked.rows.sampling[row][-1] for row in rows]
            lengths = [asked.rows.lengths[row] for row in rows]
            guessed = random_guesses(
                seeds,
                lengths,
                self._k,
                self._vocab_size,
                num_tokens=self._drafter.num_tokens,
                sampled=sampled,
                device=device,
            )
        if not self._keeps_probs:
            guessed = Drafted(guessed.tokens, guessed.probs, None)
        return self._with_distribution(guessed, sampled)

    def _with_distribution(self, drafted: Drafted, sampled: bool) -> Drafted:
        """In a round that samples every row needs its distribution spelled out, in a greedy one none does (a tree may
        have been grown for another batch).
        """
        if not sampled:
            return Drafted(drafted.tokens, None, drafted.token_probs)
        probs = _ones_on(drafted.tokens, self._vocab_size) if drafted.probs is None else drafted.probs
        raw_probs = drafted.raw_probs
        if raw_probs is None and self._plan.details and self._plan.saguaro_c != 1.0:
            raw_probs = probs  # nothing was modified
        return Drafted(drafted.tokens, probs, drafted.token_probs, raw_probs)

    def _wish(self, hit: bool, k: int) -> Wish:
        """How to draw k tokens for a round that begins with a hit, or with a fallback."""
        temperature, coefficient = self._plan.draft_temperature, self._plan.saguaro_c
        if self._fan_out is None or coefficient == 1.0:
            return Wish(self._keeps_probs, Drawing(temperature))
        drawing = Drawing(temperature, coefficient, self._fan_out.widest(k), self._plan.details)
        return Wish(self._keeps_probs, drawing, self._fan_out.counts(hit, k)[:k])

    def _logged(
        self,
        asked: DraftRound,
        missed: list[int],
        kind: FallbackKind | None,
        fallback: Span | None,
        done: Drafted,
    ) -> RoundLog:
        sampled = not asked.rows.all_greedy
        shape = (
            self._k,
            len(asked.rows),
            asked.rows.state.longest.bit_length(),
            sampled,
        )
        wanted = self._lookahead.learns and done.token_probs is not None
        confidences = HostCopy(done.token_probs) if wanted and done.token_probs is not None else None
        return RoundLog(asked.request_ids, shape, missed, kind, fallback, confidences)

    @property
    def _vocab_size(self) -> int:
        return self._drafter.vocab_size

    def _check_numbers(self, drafted: Drafted) -> None:
        """On a CPU; elsewhere verification looks, since reading here would make the host wait."""
        numbers = drafted.token_probs
        if numbers is not None and numbers.device.type == "cpu" and not bool(torch.isfinite(numbers).all()):
            raise NonFiniteLogitsError("the draft's logits hold NaN or infinity: check its weights and dtype")

    def _note(self, name: str, start: float | torch.Event) -> Span:
        span = self._watch.span("draft", name, start)  # type: ignore[arg-type]
        if self._plan.record:
            self._activities.append(span)
            del self._activities[:-MOST_SPANS]
        return span


def _ones_on(tokens: torch.Tensor, vocab: int) -> torch.Tensor:
    """Certain guesses as distributions `[..., vocab]`."""
    return torch.zeros(*tokens.shape, vocab, device=tokens.device).scatter_(-1, tokens.unsqueeze(-1), 1.0)
