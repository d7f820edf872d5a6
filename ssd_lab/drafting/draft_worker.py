"""The draft's side of a round: answer with the next draft tokens, then prepare for the next outcome."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from ssd_lab.common.device_guard import door
from ssd_lab.drafting.batch_control import ControlReader, DraftRound
from ssd_lab.drafting.draft_settings import DraftSettings
from ssd_lab.drafting.drafter import Drafter
from ssd_lab.drafting.paths import Paths
from ssd_lab.drafting.quick_answers import QuickAnswers
from ssd_lab.drafting.speculation_cache import SpeculationCache
from ssd_lab.drafting.tree_ahead import Growth, TreeAhead
from ssd_lab.drafting.worker_learning import RoundLog, WorkerLearning
from ssd_lab.errors import NonFiniteLogitsError
from ssd_lab.execution.host_copy import HostCopy, sent
from ssd_lab.execution.stopwatch import MOST_SPANS, CudaStopwatch, Span, Stopwatch
from ssd_lab.learning.fallback_choice import FallbackKind
from ssd_lab.links.messages import (
    ControlMessage,
    Lookup,
    Message,
    PrefillMessage,
    RememberMessage,
    RestoreMessage,
    RoundMessage,
)
from ssd_lab.rounds.drafted import Drafted, DraftTree
from ssd_lab.rounds.proposal import ForHits, Proposal
from ssd_lab.rounds.recorded_tree import RecordedTree


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
        self._learning = WorkerLearning(plan)
        self._remembered = copy.deepcopy(self._learning)
        self._quick = QuickAnswers(plan, drafter, keeps_probs=self._learning.keeps_probs)
        self._batch = ControlReader()
        self._pending: tuple[DraftRound, Proposal] | None = None
        self._log: RoundLog | None = None
        self._tree: RecordedTree | None = None
        self._unsent: tuple[DraftRound, Proposal, DraftTree] | None = None
        self._looked_up: tuple[Lookup, Drafted] | None = None  # until `get_ready`
        self._takes_stale = False  # may the latest lookup's misses be answered by stale branches?
        self._bound: FallbackKind | None = None  # by which fallback a round was answered that runs already
        self._was_looked_up = False  # the latest tree, before the host read of it
        self._activities: list[Span] = []
        self._watch = CudaStopwatch(drafter.device) if drafter.device.type == "cuda" else Stopwatch()
        self._ahead = TreeAhead(drafter, self._watch)

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def handle(self, message: Message) -> Proposal | None:
        """Do what the message asks; a round is answered with draft tokens for every row."""
        if isinstance(message, RoundMessage):
            self._send()
            return self._round(self._batch.round(message))
        if isinstance(message, ControlMessage):
            self._batch.read(message)
        elif isinstance(message, PrefillMessage):
            start = self._watch.start()
            self._drafter.prefill(message)
            self._note(self._span("prefill", start))
        elif isinstance(message, RememberMessage):
            self._remembered = copy.deepcopy(self._learning)
        elif isinstance(message, RestoreMessage):
            self._learning = copy.deepcopy(self._remembered)
            self._pending = self._log = self._tree = self._unsent = self._looked_up = self._bound = None
            self._ahead.forget()
            self._activities.clear()
        return None  # of a `KeptMessage` too: a chain's K/V stands where it belongs

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def background(self) -> None:
        """Prepare for the next outcome of the round that was answered last."""
        fan_out = self._learning.fan_out
        if self._pending is None or fan_out is None:
            return
        (asked, proposal), self._pending = self._pending, None
        k, hits = proposal.tokens.shape[1], [bool(hit) for hit in proposal.cache_hits]
        fan_out.remember(asked.request_ids, hits, asked.rows.sampled, k)
        growth = self._learning.growth(fan_out, hits, asked.rows, k)
        tree, span = self._ahead.take(growth) or self._grown(asked, proposal.tokens, growth)
        self._cache.store(asked.request_ids, tree)
        self._learning.k = growth.shape.depth
        self._note(span)
        if self._log is not None:
            self._log.ahead = span
        self._unsent = (asked, proposal, tree)
        if not self._was_looked_up:
            self._send()
        self._was_looked_up = False

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def look_up(self, lookup: Lookup) -> ForHits | None:
        """The hits' answer, from outcomes that the host has not read; they are looked up again in their round."""
        fan_out, k = self._learning.fan_out, self._learning.k
        if self._pending is not None or fan_out is None:
            return None
        self._takes_stale = self._learning.foresees_stale(len(lookup.rows))
        found = self._quick.looked_up(self._cache, lookup, k, stale=self._takes_stale)
        if found is None:
            return None
        self._looked_up = (lookup, found.drafted)
        return found.for_hits(record=self._plan.record)

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def get_ready(self) -> None:
        """Make the tree ready that follows if all hit; and what the host wants of the latest one may come there now."""
        looked_up, fan_out, k = self._looked_up, self._learning.fan_out, self._learning.k
        if looked_up is None or fan_out is None:
            return
        (lookup, drafted), self._looked_up = looked_up, None
        # which rows hit only the device knows yet
        if self._ahead.wants() and not (self._takes_stale and fan_out.goes_by_hits(k)):
            growth = self._learning.growth(fan_out, [True] * len(lookup.rows), lookup.rows, k)
            self._ahead.make_ready(lookup, drafted, growth)
        self._was_looked_up = True
        self._send()

    def _send(self) -> None:
        """Let the latest tree come to the host: behind its lookup, which the target waits for, where there is one."""
        if self._unsent is None:
            return
        (asked, proposal, tree), self._unsent = self._unsent, None
        shown = RecordedTree.tensors(proposal.tokens, proposal.token_probs, tree) if self._plan.record else ()
        copy = self._cache.send(shown)  # all in one: each copy takes the host as long
        if shown:
            self._tree = RecordedTree(asked.request_ids, copy or HostCopy(*shown))

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def start_ahead(self) -> None:
        """Begin the tree that `look_up` made ready: the round that it answered runs."""
        self._bound = "fast" if self._takes_stale else None
        self._ahead.start()
        if self._ahead.has_begun:
            self._cache.tree = None  # overwritten from now on

    def _round(self, asked: DraftRound) -> Proposal:
        """Learn from the outcomes, and answer."""
        self._learning.keep_for_later(asked, self._cache)
        log, self._log = self._log, None
        if log is not None:
            self._learning.round_over(log, asked)
        learns_first = self._ahead.has_begun or self._learning.draws_by_fan_out
        predicted = self._learning.outcomes(asked, self._cache) if learns_first else []
        proposal = self._answer(asked)  # a target whose round does not run yet waits for it
        proposal = replace(proposal, predicted_hits=predicted or self._learning.outcomes(asked, self._cache))
        self._cache.keep_only(asked.message.away.keys() - set(asked.request_ids))
        if self._learning.fan_out is not None:
            self._pending = (asked, proposal)
        return proposal

    def _answer(self, asked: DraftRound) -> Proposal:
        """Prepared tokens for the hits, the fallback for the missed rows only."""
        is_async = self._learning.fan_out is not None
        if not is_async:
            self._learning.k = self._learning.lookahead.choose()
        bound, self._bound = self._bound, None
        paths = Paths.of(asked, self._cache, self._learning, self._plan.fallback, bound)
        done, fallback = self._ahead.drafted_for(asked.request_ids) if paths.are_of_the_tree else None, None
        if done is None:
            if self._ahead.has_begun:  # for a round that did not come
                self._cache.drop()
                paths = Paths.of(asked, self._cache, self._learning, self._plan.fallback)
            self._ahead.forget()
            done, fallback = self._drafted(asked, paths)
        self._check_numbers(done)
        self._log = self._logged(asked, paths, fallback, done)
        tree, activities, self._tree, self._activities = self._tree, self._activities, None, []
        outcomes = zip(asked.num_accepted, paths.origins, strict=True)
        return Proposal(
            tokens=done.tokens,
            num_drafted=[done.tokens.shape[1]] * len(asked.rows),
            probs=done.probs,
            origins=paths.origins,
            cache_hits=[origin == "hit" if is_async and a is not None else None for a, origin in outcomes],
            token_probs=done.token_probs if self._plan.record else None,
            previous_trees=[] if tree is None else [tree],
            activities=activities,
            raw_probs=done.raw_probs,
            was_prepared=paths.were_found(asked, self._learning) if is_async else None,
        )

    def _drafted(self, asked: DraftRound, paths: Paths) -> tuple[Drafted, Span | None]:
        """Draft tokens of every row by its path, and how long the fallback took, if there was one."""
        k, sampled, parts = self._learning.k, not asked.rows.all_greedy, []
        taken, guessed, drafted = paths.taken, paths.guessed, paths.drafted
        if taken:
            entries = [entry for row in taken if (entry := paths.entries[row]) is not None]
            stale = [paths.origins[row] == "fast" for row in taken]
            parts.append(self._quick.taken(self._cache.tree, entries, k, stale=stale, sampled=sampled))
        start = self._watch.start()
        if guessed:
            parts.append(self._quick.guessed(asked, guessed, k, sampled=sampled))
        if drafted:
            chains = self._drafter.chain(asked, drafted, k, self._learning.request(k, after_hit=False))
            parts.append(self._quick.with_distribution(chains, sampled=sampled))
        late = drafted or guessed
        fallback = self._note(self._span(paths.origins[late[0]], start)) if late else None
        done, order = Drafted.concatenated(parts) if len(parts) > 1 else parts[0], [*taken, *guessed, *drafted]
        if order != sorted(order):
            done = done.at(sent(sorted(range(len(order)), key=order.__getitem__), self._drafter.device))
        return done, fallback

    def _logged(self, asked: DraftRound, paths: Paths, fallback: Span | None, done: Drafted) -> RoundLog:
        """The round, until its outcome is known."""
        longest = asked.rows.state.longest.bit_length()
        shape = (self._learning.k, len(asked.rows), longest, not asked.rows.all_greedy)
        wanted = self._learning.lookahead.learns and done.token_probs is not None
        confidences = HostCopy(done.token_probs) if wanted and done.token_probs is not None else None
        missed = [asked.request_ids[row] for row in paths.missed]
        return RoundLog(asked.request_ids, shape, missed, paths.kind, fallback, confidences)

    def _check_numbers(self, drafted: Drafted) -> None:
        """On a CPU; elsewhere verification looks, since reading here would make the host wait."""
        numbers = drafted.token_probs
        if numbers is not None and numbers.device.type == "cpu" and not bool(torch.isfinite(numbers).all()):
            raise NonFiniteLogitsError("the draft's logits hold NaN or infinity: check its weights and dtype")

    def _grown(self, asked: DraftRound, tokens: torch.Tensor, growth: Growth) -> tuple[DraftTree, Span]:
        start = self._watch.start()
        tree = self._drafter.ready_tree(asked, tokens, growth.fan_out, growth.shape, growth.request)()
        return tree, self._span("tree", start)

    def _span(self, name: str, start: float | torch.Event) -> Span:
        return self._watch.span("draft", name, start)  # type: ignore[arg-type]

    def _note(self, span: Span) -> Span:
        if self._plan.record:
            self._activities.append(span)
            del self._activities[:-MOST_SPANS]
        return span
