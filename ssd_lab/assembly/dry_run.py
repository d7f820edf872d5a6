"""The largest steps that a run may take, run once over a cache of a single block: what memory, which kernels?

Lengths of the text are short and only the context that the steps are planned for is long, so the steps are cheap; what
they compute is of no interest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ssd_lab.assembly.memory_reader import MemoryReader
from ssd_lab.decoding.sampling import SamplingBatch, SamplingRow
from ssd_lab.execution.graphs import SMALLEST_CONTEXT, context_bucket
from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel
from ssd_lab.phases.draft_chain import draft_chain
from ssd_lab.phases.draft_tree import BranchShape, ready_tree
from ssd_lab.phases.prefill import prefill
from ssd_lab.phases.reading import ModelReading
from ssd_lab.phases.verification import VerifyOptions
from ssd_lab.phases.verify import ready_verify
from ssd_lab.rounds.drawing import Drawing
from ssd_lab.rounds.prompt_lines import GRAPH_ROWS, PromptPart
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import Bounds, RowTensors
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.strategies.step_sizes import StepSizes

LAYERS = 2  # of all, the first reads no sum of another, and the others are alike: two hold what all hold
# rows of a prompt's step: the fewest, with which most runs begin, and those where attention over a long context is
# shared by many programs, which leave their results
PROMPT_ROWS = (GRAPH_ROWS[0], 256)
GREEDY = (0.0, 0, 1.0, 0.0, 0)
SAMPLED_AND_FILTERED = (1.0, 0, 0.9, 0.0, 0)  # the settings that make a round hold the most

Step = Callable[[StepRunner, int], Any]  # planned for so long a context


@dataclass(frozen=True)
class DryRun:
    """sizes: the strategy's. batch: sequences of a step. longest: positions of the longest sequence, draft tokens
    included. record: as in `EngineConfig`. graphs: will steps be captured, and so be planned for contexts in powers of
    two? prompt_rows: prompt tokens that a step computes, of one text or many. settings: how all rows are sampled.
    """

    sizes: StepSizes
    batch: int
    longest: int
    block_size: int
    device: torch.device
    record: bool = True
    graphs: bool = False
    prompt_rows: int = LARGEST
    settings: SamplingRow = SAMPLED_AND_FILTERED

    @property
    def contexts(self) -> list[int]:
        """The contexts for which steps are planned in turn: working memory does not grow steadily with them."""
        found, context = [], SMALLEST_CONTEXT
        while context < self.longest:
            found.append(context)
            context *= 2
        return [*found, context_bucket(self.longest) if self.graphs else self.longest]

    def steps(self, role: str) -> list[Step]:
        """A piece of a prompt, then the target's verification, or the draft's chain and its tree, if it has them."""
        if role == "target":
            return [self._prefill, self._verify]
        chain, tree = [self._chain] if self.sizes.chain else [], [self._tree] if self.sizes.branches else []
        return [self._prefill, *chain, *tree]

    def runner(self, decoder: Decoder, dtype: torch.dtype) -> StepRunner:
        """What the steps of this model run on."""
        cache = PagedKVCache(decoder.config, 1, self.block_size, dtype, self.device)
        return StepRunner(decoder, cache, self.device)

    @torch.inference_mode()
    def peak(self, role: str, model: LoadedModel, reader: MemoryReader) -> int:
        """Bytes that one of the steps holds at once."""
        steps, runner = self.steps(role), self.runner(model.decoder.first_layers(LAYERS), model.dtype)
        steps[-1](runner, self.contexts[0])  # kernels are compiled and libraries make their handles: no part of a step
        return max(reader.peak_of(partial(step, runner, context)) for step in steps for context in self.contexts)

    def _prefill(self, runner: StepRunner, context: int) -> None:
        context = min(context, self.longest)
        table = [0] * -(-context // self.block_size)
        for rows in {min(rows, context) for rows in (*PROMPT_ROWS, self.prompt_rows)}:
            prefill(runner, [PromptPart([0] * rows, context - rows, table)])

    def _verify(self, runner: StepRunner, context: int) -> None:
        k, vocab = self.sizes.lookahead, runner.decoder.config.vocab_size
        probs = torch.full((self.batch, k, vocab), 1.0 / vocab, device=self.device) if k else None
        proposal = Proposal(
            tokens=torch.zeros(self.batch, k, dtype=torch.int64, device=self.device),
            num_drafted=[k] * self.batch,
            probs=probs,
            origins=["draft"] * self.batch,
            cache_hits=[None] * self.batch,
            token_probs=torch.ones(self.batch, k, device=self.device),
        )
        ready_verify(runner, *self._rows(context - k), proposal, VerifyOptions(record=self.record)).launch()

    def _chain(self, runner: StepRunner, context: int) -> None:
        k = self.sizes.chain
        rows, bounds = self._rows(context - k + 1)
        draft_chain(runner, ModelReading(rows), bounds, k, drawing=Drawing(record=self.record))

    def _tree(self, runner: StepRunner, context: int) -> None:
        branches, depth = self.sizes.branches, self.sizes.depth
        counts = torch.zeros(self.batch, depth + 1, dtype=torch.int64, device=self.device)
        counts[:, 0] = branches
        shape = BranchShape(branches, depth, widest=branches)
        tokens = torch.zeros(self.batch, depth, dtype=torch.int64, device=self.device)
        rows, bounds = self._rows(context - depth)
        ready_tree(runner, ModelReading(rows), bounds, tokens, counts, shape, drawing=Drawing(record=self.record))()

    def _rows(self, longest: int) -> tuple[RowTensors, Bounds]:
        """Texts of two tokens, planned for as if they were `longest`."""
        width = -(-self.longest // self.block_size) + -(-self.sizes.scratch_positions // self.block_size)
        two, zeros = (torch.full((self.batch,), value, dtype=torch.int64, device=self.device) for value in (2, 0))
        rows = RowTensors(
            lengths=two,
            previous_tokens=zeros,
            last_tokens=zeros,
            tree_starts=zeros,
            num_drafted=torch.full_like(zeros, self.sizes.lookahead),
            tables=torch.zeros(self.batch, width, dtype=torch.int64, device=self.device),
            sampling=SamplingBatch.from_rows([self.settings] * self.batch, self.device),
        )
        return rows, Bounds(max(2, longest), -(-max(2, longest) // self.block_size))
