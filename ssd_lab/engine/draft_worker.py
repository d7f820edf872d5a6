"""The draft's side of a round: answer with the next draft tokens, then prepare for the next outcome."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch

from ssd_lab.decoding.sampling import SamplingBatch
from ssd_lab.decoding.tree import async_tree_parents, branch_prefixes, branch_ranks
from ssd_lab.engine.messages import Message, PrefillMessage, RoundMessage, RoundReply
from ssd_lab.engine.phases.draft_chain import draft_chain
from ssd_lab.engine.phases.draft_tree import DraftTree, draft_tree
from ssd_lab.engine.rows import RowBatch
from ssd_lab.engine.runner import StepRunner
from ssd_lab.engine.speculation_cache import SpeculationCache
from ssd_lab.errors import NonFiniteLogitsError
from ssd_lab.trace.records import Activity, TreeRecord


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


class DraftWorker:
    """Holds the draft's runner and the speculation cache; `handle` answers a message, `background` works ahead."""

    def __init__(self, runner: StepRunner, plan: DraftPlan, *, first_scratch_block: int) -> None:
        self._runner = runner
        self._plan = plan
        self._cache = SpeculationCache()
        self._scratch_blocks = -(-plan.scratch_positions // runner.block_size)
        self._first_scratch_block = first_scratch_block
        self._pending: tuple[RoundMessage, RowBatch, RoundReply] | None = None
        self._trees: dict[int, TreeRecord] = {}
        self._activities: list[Activity] = []
        if plan.fan_out_hit is not None and plan.fan_out_miss is not None:
            self._layouts = {
                True: (branch_prefixes(plan.fan_out_hit), branch_ranks(plan.fan_out_hit)),
                False: (branch_prefixes(plan.fan_out_miss), branch_ranks(plan.fan_out_miss)),
            }

    @torch.inference_mode()
    def handle(self, message: Message) -> RoundReply | None:
        """Do what the message asks; a round is answered with draft tokens for every row."""
        start_s = time.perf_counter()
        if isinstance(message, PrefillMessage):
            self._runner.prefill(message.token_ids, message.start, message.block_table)
            self._note("prefill", start_s)
            return None
        rows = RowBatch(
            message.lengths,
            message.previous_tokens,
            message.last_tokens,
            message.block_tables,
            SamplingBatch.from_rows(message.sampling, self._runner.device),
        )
        reply = self._answer(message, rows, start_s)
        if self._plan.fan_out_hit is not None:
            self._pending = (message, rows, reply)
        return reply

    @torch.inference_mode()
    def background(self) -> None:
        """Prepare for the next outcome of the round that was answered last."""
        if self._pending is None:
            return
        start_s = time.perf_counter()
        message, rows, reply = self._pending
        self._pending = None
        layouts = [self._layouts[bool(hit)] for hit in reply.cache_hits]
        device = self._runner.device
        scratch = [
            list(range(first, first + self._scratch_blocks))
            for first in (self._first_scratch_block + row * self._scratch_blocks for row in range(len(rows)))
        ]
        tree = draft_tree(
            self._runner,
            rows,
            reply.tokens.to(device),
            torch.tensor([prefixes for prefixes, _ in layouts], device=device),
            torch.tensor([ranks for _, ranks in layouts], device=device),
            scratch,
            record=self._plan.record,
        )
        self._cache.store(message.request_ids, tree)
        self._note("tree", start_s)
        if self._plan.record:
            self._trees = self._record_trees(message, reply, tree)

    def _answer(self, message: RoundMessage, rows: RowBatch, start_s: float) -> RoundReply:
        """Prepared tokens for the hits, the fallback for the missed rows only."""
        answers = [self._prepared(message, row) for row in range(len(rows))]
        missed = [row for row, answer in enumerate(answers) if answer is None]
        if missed:
            name = "draft" if self._plan.fan_out_hit is None else "jit"
            missed_rows = rows if len(missed) == len(rows) else _select(message, missed, self._runner.device)
            drafted = draft_chain(self._runner, missed_rows, self._plan.k, record=self._plan.record)
            for index, row in enumerate(missed):
                answers[row] = _Answer(name, *drafted.at(index))
            self._note(name, start_s)
        done = [answer for answer in answers if answer is not None]
        tokens = torch.stack([answer.tokens for answer in done])
        probs = None
        if not rows.sampling.all_greedy:
            vocab = self._runner.decoder.config.vocab_size
            probs = torch.stack([_distribution(answer, vocab) for answer in done])
        token_probs = [answer.token_probs.tolist() for answer in done if answer.token_probs is not None]
        if any(prob != prob for row in token_probs for prob in row):
            raise NonFiniteLogitsError("the draft's logits hold NaN or infinity: check its weights and dtype")
        cache_hits: list[bool | None] = [
            None if self._plan.fan_out_hit is None or accepted is None else answer.origin == "hit"
            for accepted, answer in zip(message.num_accepted, done, strict=True)
        ]
        trees, activities, self._trees, self._activities = self._trees, self._activities, {}, []
        origins = [answer.origin for answer in done]
        return RoundReply(
            tokens, probs, origins, cache_hits, token_probs if self._plan.record else None, trees, activities
        )

    def _prepared(self, message: RoundMessage, row: int) -> _Answer | None:
        """What the cache holds for this row's outcome: a hit, a stale guess if misses are answered fast, or nothing."""
        request_id, num_accepted = message.request_ids[row], message.num_accepted[row]
        if num_accepted is None:
            return None
        entry = self._cache.find(request_id, num_accepted, message.last_tokens[row])
        if entry is not None:
            return _Answer("hit", *entry.tree.drafted.at(entry.row, entry.branch))
        if self._plan.fallback == "fast":
            entry = self._cache.find_nearest(request_id, num_accepted)
            if entry is not None:
                tokens, _, _ = entry.tree.drafted.at(entry.row, entry.branch)
                # drawn for another prefix: whatever they were drawn from, here they are certain guesses
                return _Answer("fast", tokens, None, torch.ones(len(tokens)))
        return None

    def _record_trees(self, message: RoundMessage, reply: RoundReply, tree: DraftTree) -> dict[int, TreeRecord]:
        records = {}
        chains, chain_probs = reply.tokens.tolist(), reply.token_probs or []
        recovery, recovery_probs = tree.recovery_tokens.tolist(), tree.recovery_probs
        drafted, drafted_probs = tree.drafted.tokens.tolist(), tree.drafted.token_probs
        if recovery_probs is None or drafted_probs is None:
            return {}
        first_probs, later_probs = recovery_probs.tolist(), drafted_probs.tolist()
        for row, request_id in enumerate(message.request_ids):
            schedule = self._plan.fan_out_hit if reply.cache_hits[row] else self._plan.fan_out_miss
            tokens, probs = list(chains[row]), list(chain_probs[row])
            for branch, token in enumerate(recovery[row]):
                tokens += [token, *drafted[row][branch]]
                probs += [first_probs[row][branch], *later_probs[row][branch]]
            records[request_id] = TreeRecord(tokens, async_tree_parents(self._plan.k, schedule or ()), probs)
        return records

    def _note(self, name: str, start_s: float) -> None:
        if self._plan.record:
            self._activities.append(Activity("draft", name, start_s, time.perf_counter()))


@dataclass(frozen=True)
class _Answer:
    """One row's draft tokens `[k]`, the distributions `[k, vocab]` they were drawn from (None: certain), and their
    probabilities.
    """

    origin: str
    tokens: torch.Tensor
    probs: torch.Tensor | None
    token_probs: torch.Tensor | None


def _distribution(answer: _Answer, vocab: int) -> torch.Tensor:
    """`[k, vocab]`; a certain guess (greedy drafting too) is a one on its token."""
    if answer.probs is not None:
        return answer.probs
    tokens = answer.tokens.unsqueeze(-1)
    return torch.zeros(len(tokens), vocab, device=tokens.device).scatter_(-1, tokens, 1.0)


def _select(message: RoundMessage, rows: list[int], device: torch.device) -> RowBatch:
    """Some rows of a round."""
    return RowBatch(
        [message.lengths[row] for row in rows],
        [message.previous_tokens[row] for row in rows],
        [message.last_tokens[row] for row in rows],
        [message.block_tables[row] for row in rows],
        SamplingBatch.from_rows([message.sampling[row] for row in rows], device),
    )
