"""A target and a strategy, loaded and ready: prompts in, texts out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ssd_lab.assembly.build import build_engine
from ssd_lab.assembly.loading import load_pair
from ssd_lab.assembly.placing import placed
from ssd_lab.assembly.waiting import CaptureProgress, OnStep, Waiting
from ssd_lab.common.cpu_threads import CLAIMS
from ssd_lab.common.processor_time import ProcessorTime
from ssd_lab.common.progress import progress_bar
from ssd_lab.common.validation import validated
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.engine.call import Call, Ended, Event, Piece, Step
from ssd_lab.engine.prompts import Prompt
from ssd_lab.engine.request_maker import RequestMaker, params_of_each
from ssd_lab.engine.service import EngineService
from ssd_lab.engine.status import EngineStatus
from ssd_lab.engine.stream_trace import StreamTrace
from ssd_lab.engine.submission import Submission
from ssd_lab.engine.warm_up import run_prompts, run_shape, shapes_of_prompts, shapes_of_rounds
from ssd_lab.errors import SsdLabError
from ssd_lab.execution.graphs import SMALLEST_CONTEXT
from ssd_lab.execution.observing import NOBODY, ExecutorObserver, Observers
from ssd_lab.models.loader import LoadedModel
from ssd_lab.results import Output, RunResult
from ssd_lab.rounds.sequence import Sequence as EngineSequence
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.strategies.heads import given_as_draft
from ssd_lab.trace import Trace, compute_metrics
from ssd_lab.trace.token_texts import with_token_texts

SHAPE_LIMIT_S = 1800.0  # for the first rounds of a shape: kernels that a machine never saw take minutes
STEP_LIMIT_S = 120.0  # longest that a step may take besides waiting for its draft: kernels may be compiled in it


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed text. finish_reason is set on the last one."""

    text: str
    token_ids: list[int]
    finish_reason: str | None = None


class LLM:
    """A target, a strategy and what it needs, ready to generate. Use as a context manager, or call `close`.

    Any number of threads and streams may use one LLM at once: their requests share its batch, and each caller gets its
    own outputs, errors and trace. A forked child of the process cannot use it.

    target, draft: a hub id, a folder, a .gguf file, or a loaded model; None takes the bundled pair. fields: the
    strategy's knobs and the fields of `EngineConfig`, among them `gpus=N` and `placement={"target": ["cuda:0",
    "cuda:1"], "draft": ["cuda:2"]}` for several devices (afterwards `placement` says who computes where). chat: wrap
    text prompts in the target's chat template (None: if it has one). observer: told what is captured and replayed, of
    target and draft.

    `memory_plan` says who gets how much of the device, as measured once the models were loaded. A draft given by name
    that works in a process of its own is read there; here `draft` has its config and tokenizer, and reads the weights
    if its `decoder` is asked for.
    """

    def __init__(
        self,
        target: LoadedModel | str | None = None,
        draft: LoadedModel | str | None = None,
        strategy: str | StrategyConfig = "async_tree",
        *,
        chat: bool | None = None,
        seed: int = 0,
        progress: bool = True,
        observer: ExecutorObserver = NOBODY,
        **fields: Any,
    ) -> None:
        engine_fields = {name: fields.pop(name) for name in list(fields) if name in EngineConfig.model_fields}
        self.strategy, draft = given_as_draft(registry.config(strategy, fields), draft)
        asked = validated(EngineConfig, engine_fields, name="engine")
        self.config, places = placed(asked, self.strategy)
        self.placement = places.asked
        self._progress = progress
        pair = load_pair(target, draft, self.strategy, self.config, places, progress=progress)
        self.target, self.draft, self.memory_plan = pair.target, pair.draft, pair.plan
        self._captures = CaptureProgress()
        self._engine = build_engine(
            *(self.target, self.draft, self.strategy, self.config, self.memory_plan, places, pair.team),
            Observers(self._captures, observer),
        )
        self.threads = torch.get_num_threads()
        self._service = EngineService(
            self._engine,
            pair.device,
            threads=self.threads if pair.device.type == "cpu" else None,
            answer_limit_s=self.config.timeout_s + STEP_LIMIT_S,
        )
        self._waiting = Waiting(
            self._service,
            self._captures,
            name=self.strategy.strategy_name,
            longest=self.memory_plan.max_model_len,
            shown=progress,
        )
        self._streamed = StreamTrace(self._service)
        self._requests = RequestMaker(self._engine, self.target.tokenizer, chat=chat, seed=seed)

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the draft worker and free everything; calling it twice is fine."""
        try:
            self._service.close()
        finally:
            CLAIMS.follow()

    @property
    def num_free_blocks(self) -> int:
        """KV blocks that no request holds."""
        return self._engine.num_free_blocks

    @property
    def kv_bytes(self) -> int:
        """Memory of the target's KV blocks."""
        return self._engine.kv_bytes

    def generate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[Output]:
        """Generate for every prompt; params: one for all, or one each. Outputs keep the prompts' order.

        Ctrl-C returns what there is: finished outputs, and unfinished ones marked `cancelled` (`RunResult.interrupted`
        tells it from other ends; `ssd_lab.run` raises `RunInterrupted` with it). If a request fails, the error is
        raised with the other outputs in its attribute `outputs`, and the rounds so far in `trace`.
        """
        return self.run(prompts, params).outputs

    def run(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        on_step: OnStep | None = None,
    ) -> RunResult:
        """Like `generate`, with metrics and the trace of this call.

        on_step: called after each step of the engine with the number of steps and the counts so far (live, so copy what
        you keep). If it returns False the run ends there, and unfinished outputs come back `cancelled`.
        """
        self._service.check()
        requests = self._requests.many(prompts, params)
        self._streamed.other_begins()
        call = Call(requests, self._service.recording(), wanted=() if on_step is None else (Step,))
        error: BaseException | None = None
        processor = ProcessorTime()
        try:
            self._service.begin(call)
            error = self._waiting.until_ended(call, on_step)
        except BaseException as raised:  # Ctrl-C while waiting, or what the caller's `on_step` raised
            self._service.cancel(call)
            error = raised
        outputs = [_output(sequence) for sequence in call.sequences]
        used = processor.so_far()
        trace = self._with_token_texts(call.recording.trace())
        if on_step is None and self.placement.target == ("cpu",):  # a slow `on_step` holds the engine up
            trace.meta["processor"] = used
        if error is None:
            error = next((sequence.error for sequence in call.sequences if sequence.error is not None), None)
        if error is not None and not isinstance(error, KeyboardInterrupt):
            if isinstance(error, SsdLabError):
                error.outputs, error.trace = outputs, trace
            raise error
        strategy = {"name": self.strategy.strategy_name, **self.strategy.model_dump(mode="json")}
        return RunResult(outputs, compute_metrics(trace), trace, strategy, interrupted=error is not None)

    def warm_up(
        self,
        prompts: Prompt | Sequence[Prompt] | None = None,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        batch_sizes: Iterable[int] | None = None,
        longest: int | None = None,
    ) -> None:
        """Capture the graphs and compile the kernels of a run before it, by rounds of random tokens that leave nothing
        behind: no record, no cached prefix, nothing learned. Where phases are neither captured nor compiled, as on a
        CPU, nothing is done.

        It covers every batch size up to `batch_sizes` (None: `max_batch`, or as many as there are prompts), texts of up
        to `longest` tokens (None: 512, or the longest prompt with its `max_tokens`), and each kind of sampling in
        `params` (greedy or not, filters, log-probabilities). What comes later all the same, such as a lookahead that
        was chosen while running, is marked in the trace and in no rate. Raises ConfigError while requests are running.
        """
        self._service.check()
        if not self._engine.prepares:
            return
        requests = [] if prompts is None else self._requests.many(prompts, params)
        kinds = [request.params for request in requests] or params_of_each(params, 1)
        most = min(len(requests) or self.config.max_batch, self.config.max_batch)
        if longest is None:
            lengths = [len(request.prompt_ids) + request.params.max_tokens for request in requests]
            longest = max(lengths, default=SMALLEST_CONTEXT - self._engine.limits.reserved)
        sizes = list(range(1, most + 1) if batch_sizes is None else batch_sizes)
        engine = self._engine
        work = [
            *(partial(run_shape, engine, shape) for shape in shapes_of_rounds(engine, sizes, longest, kinds)),
            *(partial(run_prompts, engine, lengths) for lengths in shapes_of_prompts(engine, max(sizes), longest)),
        ]
        shown = progress_bar(len(work), "warming up", "shape", enabled=self._progress)
        with shown as bar, self._captures.beside(bar):
            for each in work:
                self._service.ask(each, limit_s=SHAPE_LIMIT_S)
                bar.update(1)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Chunk]:
        """Yield the text as it becomes certain; joined, the chunks are the text. Leaving the loop ends the request.

        The engine does not wait for a slow reader: its chunks queue up.
        """
        self._service.check()
        call = Call(self._requests.one(prompt, params), self._streamed.begin(), wanted=(Piece,))
        try:
            self._service.begin(call)
            while not isinstance(event := self._service.next_event(call), Ended):
                if isinstance(event, Piece):
                    yield Chunk(event.text, event.token_ids, event.finish_reason)
            error = call.sequences[0].error if event.error is None else event.error
            if error is not None:
                if isinstance(error, SsdLabError):
                    error.outputs, error.trace = [_output(call.sequences[0])], self.trace_so_far()
                raise error
        finally:
            self._service.cancel(call)
            self._streamed.end(call.recording)

    def submit(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tell: Callable[[Event], None],
        expected: str | None = None,
    ) -> Submission:
        """Begin without waiting. `tell` hears of every `Piece` and at last `Ended`, on the engine's thread, where it
        must neither wait nor raise. Errors of the input are raised here, as by `run`. expected: a text that the outputs
        may turn out to be, from which strategies that read it (`reads_expected`) draft.
        """
        self._service.check()
        requests = self._requests.many(prompts, params, expected)
        call = Call(requests, self._service.recording(), wanted=(Piece,), tell=tell)
        self._service.begin(call)
        return Submission(self._service, call)

    @property
    def is_alive(self) -> bool:
        """Is there a thread that would answer?"""
        return self._service.is_alive

    def status(self) -> EngineStatus:
        """How the engine stands between two steps. Raises EngineStoppedError if it does not answer."""
        return self._service.ask(self._engine.status)

    def room_for(self, prompt: Prompt) -> int:
        """The most tokens that can be generated after this prompt; below 1 if it does not fit."""
        return self._engine.room_after(len(self.encode(prompt)))

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids that a prompt is run as, chat template included."""
        return self._requests.encode(prompt).token_ids

    def score(self, token_ids: Sequence[int]) -> torch.Tensor:
        """The target's logits `[tokens, vocab]` (float32) after each token of a text, by one plain forward."""
        return self._service.ask(partial(self._engine.score, list(token_ids)))

    def take_trace(self) -> Trace:
        """The rounds of the stream that began last, or since the last `take_trace` within it. They are kept until the
        next `run`, `generate` or `stream` begins.
        """
        return self._with_token_texts(self._streamed.take())

    def trace_so_far(self, first_round: int = 0) -> Trace:
        """What `take_trace` would return now, while recording goes on: for watching a `stream`, between its chunks.

        A request is listed when it ends, and a round's draft tree comes with the round after it. first_round: leave
        out the rounds before this one, for whoever has them already.
        """
        return self._with_token_texts(self._streamed.so_far(first_round))

    def trace_of(self, submission: Submission, first_round: int = 0) -> Trace:
        """The rounds of submitted requests, from this one on; they may still be running."""
        recording = submission.recording
        read = recording if self._service.is_closed else self._service.ask(recording.so_far)
        return self._with_token_texts(read.trace(first_round))

    def _with_token_texts(self, trace: Trace) -> Trace:
        tokenizer = self.target.tokenizer
        if tokenizer is not None and trace.rounds:
            return with_token_texts(trace, lambda ids: "".join(map(tokenizer.token_text, ids)))
        return trace


def _output(sequence: EngineSequence) -> Output:
    return Output(
        request_id=sequence.request_id,
        prompt=sequence.prompt,
        prompt_ids=list(sequence.prompt_ids),
        text=sequence.stop.text,
        token_ids=sequence.output_ids,
        finish_reason=sequence.finish_reason or "cancelled",
        logprobs=sequence.logprobs or None,
        error=None if sequence.error is None else str(sequence.error),
    )
