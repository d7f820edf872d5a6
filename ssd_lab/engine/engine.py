"""The engine: requests in, rounds, tokens out. It asks no strategy who it is; it only knows propose, verify, commit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.decoding.sampling import SamplingBatch
from ssd_lab.engine.block_manager import BlockManager
from ssd_lab.engine.logprobs import token_logprobs
from ssd_lab.engine.phases.verify import Verified, verify
from ssd_lab.engine.proposal import Proposal
from ssd_lab.engine.proposer import NoProposer, Proposer
from ssd_lab.engine.recorder import Recorder
from ssd_lab.engine.rows import RowBatch, causal_step, table_tensor
from ssd_lab.engine.runner import StepRunner
from ssd_lab.engine.scheduler import PrefillChunk, Scheduler
from ssd_lab.engine.sequence import Sequence
from ssd_lab.engine.stopping import FinishReason, StopChecker, TextDecoder
from ssd_lab.errors import (
    CacheCapacityError,
    ConfigError,
    DraftWorkerError,
    NonFiniteLogitsError,
    PromptError,
    ProposerError,
    SsdLabError,
)
from ssd_lab.trace.records import Trace


@dataclass(frozen=True)
class EngineLimits:
    """Sizes the engine works within. lookahead: most draft tokens a round may hold."""

    max_model_len: int
    lookahead: int
    vocab_size: int


class Engine:
    """Continuous batching over one target runner and one proposer. Use as a context manager, or call `close`."""

    def __init__(
        self,
        runner: StepRunner,
        proposer: Proposer,
        blocks: BlockManager,
        config: EngineConfig,
        limits: EngineLimits,
        *,
        eos_token_ids: Iterable[int],
        make_decoder: Callable[[], TextDecoder],
        meta: dict[str, Any],
    ) -> None:
        self._runner = runner
        self._proposer = proposer
        self._blocks = blocks
        self._config = config
        self._limits = limits
        self._eos_token_ids = frozenset(eos_token_ids)
        self._make_decoder = make_decoder
        self._meta = meta
        self._next_id = 0
        self._closed = False
        self._sequences: dict[int, Sequence] = {}
        self._sampling: tuple[list[Any], SamplingBatch] | None = None
        self._scheduler = Scheduler(
            blocks,
            max_batch=config.max_batch,
            max_prefill_tokens=config.max_prefill_tokens,
            lookahead=limits.lookahead,
        )
        self.recorder = self._new_recorder()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def has_work(self) -> bool:
        """Is any request unfinished?"""
        return self._scheduler.has_work

    @property
    def num_free_blocks(self) -> int:
        """KV blocks that no request holds."""
        return self._blocks.num_available

    @property
    def kv_bytes(self) -> int:
        """Memory of the target's KV blocks."""
        return self._runner.cache.bytes

    @property
    def proposer(self) -> Proposer:
        """The proposer in use (NoProposer once a draft worker was lost)."""
        return self._proposer

    def submit(self, prompt_ids: list[int], params: SamplingParams, *, seed: int, prompt: str | None = None) -> int:
        """Queue a request; returns its id. Raises PromptError or CacheCapacityError for one that could never finish."""
        if self._closed:
            raise ConfigError("the engine is closed: make a new one")
        if not -(2**63) <= seed < 2**63:
            raise ConfigError(f"seed {seed} does not fit in 64 bits")
        self._check_prompt(prompt_ids, params)
        stops = set(params.stop_token_ids)
        if not params.ignore_eos:
            stops |= self._eos_token_ids
        sequence = Sequence(
            request_id=self._next_id,
            prompt=prompt,
            prompt_ids=list(prompt_ids),
            params=params,
            seed=seed,
            stop=StopChecker(
                self._make_decoder(), stop_token_ids=stops, stop_strings=params.stop, max_tokens=params.max_tokens
            ),
            arrival_s=self.recorder.now_s(),
        )
        self._next_id += 1
        self._sequences[sequence.request_id] = sequence
        self._scheduler.add(sequence)
        return sequence.request_id

    def sequence(self, request_id: int) -> Sequence:
        """An unfinished request; the object stays readable after it ends."""
        return self._sequences[request_id]

    @torch.inference_mode()
    def score(self, token_ids: list[int]) -> torch.Tensor:
        """Logits `[tokens, vocab]` after each token, by a plain forward over blocks taken for the purpose."""
        blocks = self._blocks.allocate(self._blocks.blocks_for(len(token_ids)))
        try:
            tables = table_tensor([blocks], self._runner.device)
            tokens = torch.tensor([token_ids], device=self._runner.device)
            return self._runner.logits(causal_step(tokens, [0], tables, self._runner.block_size))[0]
        finally:
            self._blocks.release(blocks)

    def cancel(self, request_id: int) -> Sequence | None:
        """End a request now, keeping its text so far; None if it is not (or no longer) in the engine."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._finish(sequence, "cancelled")
        return sequence

    def cancel_all(self) -> list[Sequence]:
        """End every unfinished request."""
        return [sequence for request_id in list(self._sequences) if (sequence := self.cancel(request_id)) is not None]

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Compute prompt chunks and one round; returns the sequences whose text grew or that ended."""
        start_s = self.recorder.now_s()
        chunks = self._scheduler.schedule()
        for sequence in self._scheduler.running:
            if sequence.admitted_s is None:
                sequence.admitted_s = start_s
        for chunk in chunks:
            self._prefill(chunk)
        sequences = self._scheduler.ready()
        if sequences:
            self._round(sequences)
        return sequences

    def take_trace(self) -> Trace:
        """What was recorded since the last call; recording starts afresh."""
        trace = self.recorder.trace()
        self.recorder = self._new_recorder()
        return trace

    def close(self) -> None:
        """End every request and free everything; calling it twice is fine."""
        self._closed = True
        self.cancel_all()
        self._proposer.close()

    def _new_recorder(self) -> Recorder:
        return Recorder(self._meta, record=self._config.record)

    def _check_prompt(self, prompt_ids: list[int], params: SamplingParams) -> None:
        limits = self._limits
        if not prompt_ids:
            raise PromptError("the prompt is empty: give at least one token")
        if len(prompt_ids) >= limits.max_model_len:
            raise PromptError(
                f"the prompt has {len(prompt_ids)} tokens, and the context holds {limits.max_model_len} with at least "
                "one of them generated: shorten the prompt or raise max_model_len"
            )
        outside = [token for token in prompt_ids if not 0 <= token < limits.vocab_size]
        if outside:
            raise PromptError(f"token ids {outside[:5]} are outside the vocabulary of {limits.vocab_size}")
        longest = min(len(prompt_ids) + params.max_tokens, limits.max_model_len) + limits.lookahead
        needed = self._blocks.blocks_for(longest)
        if needed > self._blocks.num_usable:
            raise CacheCapacityError(
                f"the request can grow to {needed} KV blocks and the cache has {self._blocks.num_usable} in all: "
                "raise num_blocks, or lower max_tokens"
            )

    def _prefill(self, chunk: PrefillChunk) -> None:
        start_s = self.recorder.now_s()
        sequence = chunk.sequence
        try:
            self._proposer.prefill(chunk)
        except DraftWorkerError as error:
            self._go_on_without_draft(error)
        except SsdLabError:
            raise
        except Exception as error:
            raise ProposerError(f"the strategy's proposer raised {type(error).__name__}: {error}") from error
        self._runner.prefill(sequence.token_ids[chunk.start : chunk.stop], chunk.start, sequence.blocks)
        sequence.num_cached = chunk.stop
        self._scheduler.register_full_blocks(sequence, chunk.stop)
        self.recorder.prefill(start_s)

    def _round(self, sequences: list[Sequence]) -> None:
        start_s = self.recorder.now_s()
        rows = RowBatch(
            lengths=[len(sequence.token_ids) for sequence in sequences],
            previous_tokens=[sequence.token_ids[-2:][0] for sequence in sequences],
            last_tokens=[sequence.token_ids[-1] for sequence in sequences],
            block_tables=[sequence.blocks for sequence in sequences],
            sampling=self._sampling_batch(sequences),
        )
        proposal = self._propose(sequences, rows)
        verify_start_s = self.recorder.now_s()
        verified = verify(self._runner, rows, proposal, record=self._config.record)
        verify_end_s = self.recorder.now_s()
        draft_tokens: list[list[int]] = proposal.tokens.tolist()
        emitted = [self._commit(sequence, row, draft_tokens[row], verified) for row, sequence in enumerate(sequences)]
        self.recorder.round(
            sequences, rows.lengths, draft_tokens, proposal, verified, emitted, start_s, verify_start_s, verify_end_s
        )
        for row, sequence in enumerate(sequences):
            if not verified.finite[row]:
                self._runner.wipe(self._scheduler.discard(sequence))
                self._finish(sequence, "error")
                sequence.error = NonFiniteLogitsError(
                    f"request {sequence.request_id}: the target's logits after token {rows.lengths[row]} hold NaN or "
                    "infinity: check the weights and the dtype (float16 overflows where bfloat16 does not)"
                )
            elif sequence.finish_reason is not None:
                self._finish(sequence, sequence.finish_reason)

    def _propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        try:
            proposal = self._proposer.propose(sequences, rows)
        except DraftWorkerError as error:
            self._go_on_without_draft(error)
            return Proposal.empty(len(sequences), self._runner.device)
        except (SsdLabError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise ProposerError(f"the strategy's proposer raised {type(error).__name__}: {error}") from error
        if not isinstance(proposal, Proposal):
            raise ProposerError(f"the strategy's proposer returned {type(proposal).__name__}; return a Proposal")
        problem = proposal.problem(len(sequences), self._limits.lookahead, self._limits.vocab_size)
        if problem is not None:
            raise ProposerError(f"the strategy's proposal is wrong: {problem}")
        return proposal

    def _commit(self, sequence: Sequence, row: int, draft_tokens: list[int], verified: Verified) -> int:
        """Append the outcome token by token until the request ends; returns how many tokens entered the text."""
        if not verified.finite[row]:
            return 0
        num_accepted = verified.num_accepted[row]
        tokens = [*draft_tokens[:num_accepted], verified.recovery_tokens[row]]
        if sequence.first_token_s is None:
            sequence.first_token_s = self.recorder.now_s()
        emitted = 0
        for token in tokens:
            sequence.token_ids.append(token)
            emitted += 1
            sequence.finish_reason = sequence.stop.push(token)
            if sequence.finish_reason is None and len(sequence.token_ids) >= self._limits.max_model_len:
                sequence.stop.finish()
                sequence.finish_reason = "length"
            if sequence.finish_reason is not None:
                break
        if sequence.params.logprobs:
            sequence.logprobs += token_logprobs(verified.logits[row], tokens[:emitted], sequence.params.logprobs)
        sequence.last_accepted = num_accepted
        sequence.num_cached = len(sequence.token_ids) - 1
        # the draft may still lack the token before the last, so a block is shared only when it ends before that
        self._scheduler.register_full_blocks(sequence, len(sequence.token_ids) - 2)
        return emitted

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        if sequence.end_s is not None:
            return
        if reason in ("cancelled", "error"):
            sequence.stop.finish()
        sequence.finish_reason = reason
        sequence.end_s = self.recorder.now_s()
        self._scheduler.remove(sequence)
        self._sequences.pop(sequence.request_id, None)
        self.recorder.request(sequence)

    def _go_on_without_draft(self, error: DraftWorkerError) -> None:
        warnings.warn(f"{error}; the run goes on without a draft, autoregressively", RuntimeWarning, stacklevel=2)
        self._meta = {**self._meta, "degraded": str(error)}
        self.recorder.note("degraded", str(error))
        failed, self._proposer = self._proposer, NoProposer()
        failed.close()

    def _sampling_batch(self, sequences: list[Sequence]) -> SamplingBatch:
        """Settings change only when requests enter or leave, so the tensors are kept between rounds."""
        key = [sequence.sampling_row for sequence in sequences]
        if self._sampling is None or self._sampling[0] != key:
            self._sampling = (key, SamplingBatch.from_rows(key, self._runner.device))
        return self._sampling[1]
