"""Who is computed next: admission, chunked prefill, preemption. Knows sequences and blocks, no tensors."""

from __future__ import annotations

from collections import deque

from ssd_lab.engine.prefill_budget import PrefillBudget
from ssd_lab.rounds.block_manager import ROOT, BlockManager
from ssd_lab.rounds.sequence import PrefillChunk, Sequence


class Scheduler:
    """Continuous batching: requests enter and leave between any two rounds, first come, first served.

    reserved: cache positions past the committed tokens that a round may write. When blocks run out,
    the sequence that entered last gives up its blocks and goes back to the front of the queue; its tokens are kept and
    computed again later (or found again by prefix reuse).

    preempted: the sequences that gave up their blocks in the latest `schedule`.
    """

    def __init__(self, blocks: BlockManager, *, max_batch: int, budget: PrefillBudget, reserved: int) -> None:
        self._blocks = blocks
        self._max_batch = max_batch
        self._budget = budget
        self._chosen = 0  # prompt tokens that are computed before the next round already
        self._reserved = reserved
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preempted: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        """Is any request unfinished?"""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a request."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """A request is finished or cancelled: free what it holds."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def discard(self, sequence: Sequence) -> list[int]:
        """Remove a sequence whose K/V is worthless; returns blocks to be wiped before others use them."""
        blocks, sequence.blocks = sequence.blocks, []
        self.remove(sequence)
        return self._blocks.discard(blocks)

    def schedule(self) -> list[PrefillChunk]:
        """Make room for the running sequences, admit waiting ones, and choose the prompt tokens to compute now."""
        self.preempted = []
        self._reserve_running()
        self._admit(kept=0)
        decoding = sum(sequence.is_prefilled and sequence.last_accepted is not None for sequence in self.running)
        chunks, self._chosen = self._prefill_chunks(decoding), 0
        return chunks

    def schedule_behind(self, decoding: int, ahead: int) -> list[PrefillChunk]:
        """The same while a round of so many sequences is under way: nobody has to leave, and blocks are left for texts
        that are `ahead` tokens longer after it.
        """
        self._admit(kept=sum(self._needed(sequence, ahead) for sequence in self.running))
        chunks = self._prefill_chunks(decoding)
        self._chosen += sum(chunk.stop - chunk.start for chunk in chunks)
        return chunks

    @property
    def may_admit(self) -> bool:
        """Could a waiting request enter before the next round?"""
        return bool(self.waiting) and len(self.running) < self._max_batch

    def extend(self, ahead: int) -> bool:
        """Reserve so many positions more for every running sequence; False if there are not enough blocks."""
        missing = [self._needed(sequence, ahead) for sequence in self.running]
        if sum(missing) > self._blocks.num_available:
            return False
        for sequence, needed in zip(self.running, missing, strict=True):
            sequence.blocks += self._blocks.allocate(needed)
        return True

    def ready(self) -> list[Sequence]:
        """The sequences that take part in a round: all that are past their prefill."""
        return [sequence for sequence in self.running if sequence.is_prefilled]

    def register_full_blocks(self, sequence: Sequence, num_tokens: int) -> None:
        """Make the sequence's blocks within its first `num_tokens` tokens findable by other requests."""
        size = self._blocks.block_size
        while (sequence.num_registered + 1) * size <= num_tokens:
            index = sequence.num_registered
            tokens = sequence.token_ids[index * size : (index + 1) * size + self._blocks.tokens_after]
            sequence.prefix_key = self._blocks.register(sequence.blocks[index], sequence.prefix_key, tokens)
            sequence.num_registered += 1

    def _needed(self, sequence: Sequence, ahead: int = 0) -> int:
        """Blocks still missing for the next round of this sequence, with its text up to `ahead` tokens longer."""
        wanted = self._blocks.blocks_for(len(sequence.token_ids) + ahead + self._reserved)
        return max(0, wanted - len(sequence.blocks))

    def _reserve_running(self) -> None:
        for sequence in list(self.running):
            while sequence in self.running and self._needed(sequence) > self._blocks.num_available:
                self._preempt(self.running[-1])
            if sequence in self.running:
                sequence.blocks += self._blocks.allocate(self._needed(sequence))

    def _admit(self, kept: int) -> None:
        """kept: blocks that are not given away."""
        while self.waiting and len(self.running) < self._max_batch:
            sequence = self.waiting[0]
            # the last token is always fed by a round, so only what is before it can be reused
            blocks, key = self._blocks.match_prefix(sequence.token_ids[:-1])
            sequence.blocks = blocks
            needed = self._needed(sequence)
            if needed > self._blocks.num_available - kept:
                self._blocks.release(blocks)
                sequence.blocks = []
                return
            sequence.prefix_key = key
            sequence.num_registered = len(blocks)
            sequence.num_cached = len(blocks) * self._blocks.block_size
            sequence.blocks += self._blocks.allocate(needed)
            self.running.append(self.waiting.popleft())

    def _prefill_chunks(self, decoding: int) -> list[PrefillChunk]:
        waiting = [sequence for sequence in self.running if not sequence.is_prefilled]
        budget = self._budget.tokens(decoding=decoding, waiting=len(waiting)) - self._chosen
        chunks = []
        for sequence in waiting:
            if budget > 0:
                size = min(len(sequence.token_ids) - 1 - sequence.num_cached, budget)
                chunks.append(PrefillChunk(sequence, sequence.num_cached, sequence.num_cached + size))
                budget -= size
        return chunks

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.num_preemptions += 1
        self.waiting.appendleft(sequence)
        self.preempted.append(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._blocks.release(sequence.blocks)
        sequence.blocks = []
        sequence.num_cached = 0
        sequence.num_registered = 0
        sequence.prefix_key = ROOT
