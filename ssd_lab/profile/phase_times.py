"""Time single phases of a model: verification by rows, draft chains, draft trees, at a given context and batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.execution.make_executor import make_executor
from ssd_lab.models.kv_cache import PagedKVCache
from ssd_lab.models.loader import LoadedModel
from ssd_lab.phases.draft_chain import draft_chain
from ssd_lab.phases.draft_tree import BranchShape, ready_tree
from ssd_lab.phases.reading import ModelReading
from ssd_lab.phases.verification import VerifyOptions
from ssd_lab.phases.verify import launch_verify
from ssd_lab.profile.timing import seconds_per_call
from ssd_lab.rounds.drawing import Drawing
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import Bounds, KnownState, RowBatch, RowTensors
from ssd_lab.rounds.runner import StepRunner

BLOCK_SIZE = 16
ROOM = 64  # tokens behind the context that a phase may write


@dataclass(frozen=True)
class Work:
    """batch sequences of `context` tokens each."""

    batch: int = 1
    context: int = 512


class PhaseTimer:
    """A model with a cache full of noise, on which phases are timed as an engine would run them.

    largest: the most sequences and the longest context that will be asked for. scratch_positions: of one sequence's
    tree, branches times k.
    """

    @staticmethod
    def cache_bytes(model: LoadedModel, largest: Work, scratch_positions: int = 0) -> int:
        """Memory of the cache that a timer for this work makes."""
        per_sequence = -(-(largest.context + ROOM) // BLOCK_SIZE) + -(-scratch_positions // BLOCK_SIZE)
        return largest.batch * per_sequence * PagedKVCache.bytes_per_block(model.config, BLOCK_SIZE, model.dtype)

    def __init__(self, model: LoadedModel, largest: Work, *, scratch_positions: int = 0, eager: bool = False) -> None:
        self.model = model
        self.device = model.decoder.device
        self._per_sequence = -(-(largest.context + ROOM) // BLOCK_SIZE)
        per_row = -(-scratch_positions // BLOCK_SIZE)
        executor = make_executor(self.device, eager=eager or not model.decoder.kernels.captures)
        rows = executor.bucket(largest.batch)
        main = 1 + rows * self._per_sequence
        cache = PagedKVCache(model.config, main + rows * per_row, BLOCK_SIZE, model.dtype, self.device)
        generator = torch.Generator(self.device).manual_seed(0)
        for layer in cache.layers:
            layer.normal_(generator=generator)
        scratch = [list(range(main + row * per_row, main + (row + 1) * per_row)) for row in range(rows)]
        self._placement = Placement(
            self.device,
            max_rows=largest.batch,
            width=self._per_sequence + per_row,
            block_size=BLOCK_SIZE,
            scratch=scratch,
            bucket=executor.bucket,
        )
        executor.keep_in_place(self._placement.buffers())
        self.runner = StepRunner(model.decoder, cache, self.device, executor)

    def __enter__(self) -> PhaseTimer:
        return self

    def __exit__(self, *exception: object) -> None:
        """Free the cache and the graphs before the next timer takes theirs."""
        del self.runner, self._placement
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def place(self, work: Work) -> tuple[RowTensors, Bounds]:
        """The rows of this work on the device, and what the host knows of them."""
        return self._placement.place(self._rows(work))

    @torch.inference_mode()
    def verify_s(self, work: Work, k: int, *, record: bool = False, repeats: int = 20) -> float:
        """A verification of k draft tokens; k = 0 is an autoregressive step."""
        placed = self._placement.place(self._rows(work), num_drafted=[k] * work.batch)
        tokens = torch.randint(1, self._vocab, (work.batch, k), device=self.device)
        probs = torch.ones(work.batch, k, device=self.device) if record and k else None
        proposal = Proposal(tokens, [k] * work.batch, None, ["draft"] * work.batch, [None] * work.batch, probs)
        options = VerifyOptions(record=record)
        return seconds_per_call(
            lambda: launch_verify(self.runner, *placed, proposal, options), self.device, repeats=repeats
        )

    @torch.inference_mode()
    def chain_s(self, work: Work, k: int, *, record: bool = False, repeats: int = 20) -> float:
        """A draft chain of k steps."""
        rows, bounds = self.place(work)
        reading = ModelReading(rows)
        return seconds_per_call(
            lambda: draft_chain(self.runner, reading, bounds, k, drawing=Drawing(record=record)),
            self.device,
            repeats=repeats,
        )

    @torch.inference_mode()
    def tree_s(self, work: Work, k: int, fan_out: tuple[int, ...], *, record: bool = False, repeats: int = 20) -> float:
        """A draft tree: the extension over k tokens, then k steps over all branches."""
        rows, bounds = self.place(work)
        reading, count = ModelReading(rows), len(rows)
        tokens = torch.randint(1, self._vocab, (count, k), device=self.device)
        counts = torch.tensor([fan_out] * count, device=self.device)
        shape = BranchShape(branches=sum(fan_out), depth=k, widest=max(fan_out))
        return seconds_per_call(
            lambda: ready_tree(self.runner, reading, bounds, tokens, counts, shape, drawing=Drawing(record=record))(),
            self.device,
            repeats=repeats,
        )

    @property
    def weight_bytes(self) -> int:
        """Weights that one forward reads: every product's, once."""
        return sum(linear.bytes for linear in self.model.decoder.linears())

    def kv_bytes(self, work: Work) -> int:
        """Keys and values that one forward reads, each once."""
        per_token = PagedKVCache.bytes_per_block(self.model.config, 1, self.model.dtype)
        return per_token * work.context * work.batch

    @property
    def _vocab(self) -> int:
        return min(self.model.config.vocab_size, 4096)

    def _rows(self, work: Work) -> RowBatch:
        tables = [
            list(range(1 + row * self._per_sequence, 1 + (row + 1) * self._per_sequence)) for row in range(work.batch)
        ]
        last = torch.randint(1, self._vocab, (2, work.batch), generator=torch.Generator().manual_seed(1)).tolist()
        state = KnownState.of([work.context] * work.batch, last[0], last[1])
        return RowBatch(state, tables, [(0.0, 0, 1.0, 0.0, 0)] * work.batch)
