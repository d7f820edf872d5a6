"""The draft's side of a round: answer with the next draft tokens, then prepare for the next outcome."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from ssd_lab.decoding.tree import branch_prefixes, branch_ranks
from ssd_lab.engine.drafter import Drafter, ModelDrafter
from ssd_lab.engine.messages import KeptMessage, Message, PrefillMessage, RoundMessage, RoundReply
from ssd_lab.engine.phases.draft_chain import Drafted
from ssd_lab.engine.placement import Placement
from ssd_lab.engine.recorded_tree import RecordedTree
from ssd_lab.engine.runner import StepRunner
from ssd_lab.engine.speculation_cache import Entry, SpeculationCache
from ssd_lab.engine.stopwatch import CudaStopwatch, Span, Stopwatch
from ssd_lab.errors import NonFiniteLogitsError


@dataclass(frozen=True)
class DraftPlan:
    """What the worker does each round.

    k: draft tokens a round. fan_out_hit, fan_out_miss: the fan-out schedule (k + 1 numbers, equal sums) after a hit and
    after a fallback; None for a worker that only answers (synchronous drafting). fallback: what answers a miss. record:
    keep trees, probabilities and times for the trace.
    """

    k: int
    fan_out_hit: tuple[int, ...] | None = None
    fan_out_miss: tuple[int, ...] | None = None
    fallback: Literal["jit", "fast"] = "jit"
    record: bool = True

    @property
    def scratch_positions(self) -> int:
        """Cache positions that one sequence's branches need."""
        return 0 if self.fan_out_hit is None else sum(self.fan_out_hit) * self.k

    def make_worker(self, runner: StepRunner, placement: Placement) -> DraftWorker:
        """A worker with this plan."""
        return DraftWorker(ModelDrafter(runner, placement), self)

    def schedule(self, hit: bool | None) -> tuple[int, ...]:
        """The fan-out of a round that began with a hit, or with a fallback."""
        return (self.fan_out_hit if hit else self.fan_out_miss) or ()


class DraftWorker:
    """Holds the drafter and the speculation cache; `handle` answers a message, `background` works ahead."""

    def __init__(self, drafter: Drafter, plan: DraftPlan) -> None:
        self._drafter, self._plan = drafter, plan
        self._cache = SpeculationCache()
        self._pending: tuple[RoundMessage, RoundReply] | None = None
        self._tree: RecordedTree | None = None
        self._activities: list[Span] = []
        self._watch = CudaStopwatch(drafter.device) if drafter.device.type == "cuda" else Stopwatch()

    @torch.inference_mode()
    def handle(self, message: Message) -> RoundReply | None:
        """Do what the message asks; a round is answered with draft tokens for every row."""
        start = self._watch.start()
        if isinstance(message, PrefillMessage):
            self._drafter.prefill(message)
            self._note("prefill", start)
            return None
        if isinstance(message, KeptMessage):
            return None  # a chain's K/V stands where it belongs
        reply = self._answer(message)
        if self._plan.fan_out_hit is not None:
            self._pending = (message, reply)
        return reply

    @torch.inference_mode()
    def background(self) -> None:
        """Prepare for the next outcome of the round that was answered last."""
        if self._pending is None:
            return
        start = self._watch.start()
        message, reply = self._pending
        self._pending = None
        hits = [bool(hit) for hit in reply.cache_hits]
        layouts = [self._layouts[hit] for hit in hits]
        tree = self._drafter.tree(message, reply.tokens, layouts, widest=self._widest, record=self._plan.record)
        self._cache.store(message.request_ids, [prefixes for prefixes, _ in layouts], tree)
        self._note("tree", start)
        if reply.token_probs is None or tree.recovery_probs is None or tree.drafted.token_probs is None:
            return
        self._tree = RecordedTree.of(
            message.request_ids,
            [self._plan.schedule(hit) for hit in hits],
            *(reply.tokens, reply.token_probs),
            (tree.recovery_tokens, tree.recovery_probs, tree.drafted.tokens, tree.drafted.token_probs),
            tree.candidates,
        )

    @cached_property
    def _layouts(self) -> dict[bool, tuple[list[int], list[int]]]:
        """Accepted length and rank of each branch, after a hit and after a fallback."""
        schedules = {hit: self._plan.schedule(hit) for hit in (True, False)}
        return {hit: (branch_prefixes(schedule), branch_ranks(schedule)) for hit, schedule in schedules.items()}

    @cached_property
    def _widest(self) -> int:
        return max(*self._plan.schedule(True), *self._plan.schedule(False))

    def _answer(self, message: RoundMessage) -> RoundReply:
        """Prepared tokens for the hits, the fallback for the missed rows only."""
        entries = [self._prepared(message, row) for row in range(len(message.request_ids))]
        missed = [row for row, (_, entry) in enumerate(entries) if entry is None]
        origins = [origin for origin, _ in entries]
        sampled = not message.rows.all_greedy
        parts: list[Drafted] = []
        if len(missed) < len(entries):
            parts.append(self._taken([(origin, entry) for origin, entry in entries if entry is not None], sampled))
        if missed:
            start = self._watch.start()
            drafted = self._drafter.chain(message, missed, self._plan.k, record=self._plan.record)
            parts.append(_with_distribution(drafted, sampled, self._vocab_size))
            self._note(origins[missed[0]], start)
        done = parts[0]
        if len(parts) == 2:
            prepared = [row for row in range(len(entries)) if row not in missed]
            order = torch.tensor([*prepared, *missed], device=self._drafter.device).argsort()
            done = Drafted.concatenated(parts).at(order)
        self._check_numbers(done)
        cache_hits: list[bool | None] = [
            None if self._plan.fan_out_hit is None or accepted is None else origin == "hit"
            for accepted, origin in zip(message.num_accepted, origins, strict=True)
        ]
        tree, activities, self._tree, self._activities = self._tree, self._activities, None, []
        return RoundReply(done.tokens, done.probs, origins, cache_hits, done.token_probs, tree, activities)

    def _prepared(self, message: RoundMessage, row: int) -> tuple[str, Entry | None]:
        """The path that answers this row, and what the cache holds for it: for its outcome (a hit), or a stale guess if
        misses are answered fast.
        """
        if self._plan.fan_out_hit is None:
            return "draft", None
        request_id, num_accepted = message.request_ids[row], message.num_accepted[row]
        if num_accepted is None:
            return "jit", None
        entry = self._cache.find(request_id, num_accepted, message.last_tokens[row])
        if entry is not None:
            return "hit", entry
        nearest = self._cache.find_nearest(request_id, num_accepted) if self._plan.fallback == "fast" else None
        return ("jit", None) if nearest is None else ("fast", nearest)

    def _taken(self, entries: list[tuple[str, Entry]], sampled: bool) -> Drafted:
        """Branches of the tree. Those taken for another outcome are certain guesses, whatever they were drawn from."""
        tree = self._cache.tree
        if tree is None:
            raise RuntimeError("the speculation cache has entries and no tree")
        places = torch.tensor([(entry.row, entry.branch) for _, entry in entries], device=self._drafter.device)
        taken = tree.drafted.at(places[:, 0], places[:, 1])
        stale = [origin == "fast" for origin, _ in entries]
        drafted = _with_distribution(taken, sampled, self._vocab_size)
        if not any(stale):
            return drafted
        certain = torch.tensor(stale, device=self._drafter.device)
        probs = drafted.probs
        if probs is not None:
            probs = torch.where(certain[:, None, None], _ones_on(drafted.tokens, self._vocab_size), probs)
        token_probs = drafted.token_probs
        if token_probs is not None:
            token_probs = torch.where(certain[:, None], 1.0, token_probs)
        return Drafted(drafted.tokens, probs, token_probs)

    @property
    def _vocab_size(self) -> int:
        return self._drafter.vocab_size

    def _check_numbers(self, drafted: Drafted) -> None:
        """On a CPU; elsewhere verification looks, since reading here would make the host wait."""
        numbers = drafted.token_probs
        if numbers is not None and numbers.device.type == "cpu" and not bool(torch.isfinite(numbers).all()):
            raise NonFiniteLogitsError("the draft's logits hold NaN or infinity: check its weights and dtype")

    def _note(self, name: str, start: float | torch.cuda.Event) -> None:
        if self._plan.record:
            self._activities.append(self._watch.span("draft", name, start))  # type: ignore[arg-type]


def _ones_on(tokens: torch.Tensor, vocab: int) -> torch.Tensor:
    """Certain guesses as distributions `[..., vocab]`."""
    return torch.zeros(*tokens.shape, vocab, device=tokens.device).scatter_(-1, tokens.unsqueeze(-1), 1.0)


def _with_distribution(drafted: Drafted, sampled: bool, vocab: int) -> Drafted:
    """In a round that samples every row needs its distribution spelled out, in a greedy one none does (a tree may have
    been grown for another batch).
    """
    probs = (_ones_on(drafted.tokens, vocab) if drafted.probs is None else drafted.probs) if sampled else None
    return Drafted(drafted.tokens, probs, drafted.token_probs)
