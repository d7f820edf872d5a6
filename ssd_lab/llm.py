"""A target and a strategy, loaded and ready: prompts in, texts out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab import demo
from ssd_lab.build import build_engine, open_draft, resolve_device
from ssd_lab.capture_progress import CaptureProgress
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.engine.observing import NOBODY, ExecutorObserver, Observers
from ssd_lab.engine.sequence import Sequence as EngineSequence
from ssd_lab.errors import CacheCapacityError, ConfigError, PromptError, SsdLabError
from ssd_lab.kernels.cuda_check import check_cuda
from ssd_lab.models.compatibility import check_draft
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.out_of_memory import explain_out_of_memory
from ssd_lab.planning import plan_before_loading, plan_loaded
from ssd_lab.progress import notice, progress_bar
from ssd_lab.results import Output, RunResult
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.trace import Totals, Trace, compute_metrics
from ssd_lab.trace.token_texts import with_token_texts
from ssd_lab.validation import validated

Prompt = str | Sequence[int] | Sequence[dict[str, str]]
OnStep = Callable[[int, Totals], bool | None]


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed text. finish_reason is set on the last one."""

    text: str
    token_ids: list[int]
    finish_reason: str | None = None


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as it is run. text: None if ids were given. behind: ids that the output's text continues; an answer in a
    chat begins a text of its own.
    """

    text: str | None
    token_ids: list[int]
    behind: list[int]


class LLM:
    """A target, a strategy and what it needs, ready to generate. Use as a context manager, or call `close`.

    target, draft: a hub id, a folder, a .gguf file, or a loaded model; None takes the bundled pair. fields: the
    strategy's knobs and the fields of `EngineConfig`. chat: wrap text prompts in the target's chat template (None: if
    it has one). observer: told what is captured and replayed, of target and draft. memory_plan: who gets how much of
    the device, as measured once the models were loaded. A draft given by name that works in a process of its own is
    read there; here `draft` has its config and tokenizer, and reads the weights if its `decoder` is asked for.
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
        self.strategy = registry.config(strategy, fields)
        self.config = validated(EngineConfig, engine_fields, name="engine")
        self._progress = progress
        self._seed = seed
        where = resolve_device(self.config.device)
        check_cuda(where, self.config.kernels)
        device = str(where)
        if target is None:
            target = str(demo.TARGET)
            draft = str(demo.DRAFT) if draft is None else draft
        if self.strategy.uses_draft and draft is None:
            raise ConfigError(
                f"strategy {self.strategy.strategy_name!r} needs a draft model: "
                "pass draft=<hub id, folder or .gguf file>"
            )
        if where.type == "cuda":  # before anything is put there
            drafting = draft if self.strategy.uses_draft else None
            first_plan = plan_before_loading(target, drafting, self.strategy, self.config, where)
            notice(f"memory on {where}\n{first_plan}", enabled=progress)
        self.target = self._load(target, device)
        self.draft: LoadedModel | None = None
        if self.strategy.uses_draft and draft is not None:
            self.draft = open_draft(draft, self.strategy, self.config, where, progress=progress)
            check_draft(self.target, self.draft)
        self._chat = (
            self.target.tokenizer is not None and self.target.tokenizer.has_chat_template if chat is None else chat
        )
        self._device = where
        self.memory_plan = plan_loaded(self.target, self.draft, self.strategy, self.config, where)
        if where.type == "cuda":
            notice(f"measured on {where}\n{self.memory_plan}", enabled=progress)
        self._captures = CaptureProgress()
        self._engine = build_engine(
            self.target, self.draft, self.strategy, self.config, self.memory_plan, Observers(self._captures, observer)
        )
        self.threads = torch.get_num_threads()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the draft worker and free everything; calling it twice is fine."""
        self._engine.close()

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

        Ctrl-C returns what there is: finished outputs, and unfinished ones marked `cancelled`. If a request fails, the
        error is raised with the other outputs in its attribute `outputs`.
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
        many = _as_prompts(prompts)
        each = _as_params(params, len(many))
        encoded = [self._encode(prompt) for prompt in many]
        self._engine.take_trace()
        sequences: dict[int, EngineSequence] = {}
        try:
            ids = [
                self._engine.submit(
                    asked.token_ids,
                    own,
                    seed=self._request_seed(own, index),
                    prompt=asked.text,
                    behind=asked.behind,
                )
                for index, (asked, own) in enumerate(zip(encoded, each, strict=True))
            ]
            for request_id in ids:
                sequences[request_id] = self._engine.sequence(request_id)
            self._run_to_end(sequences, on_step)
        except KeyboardInterrupt:
            self._engine.cancel_all()
        except SsdLabError as error:
            self._engine.cancel_all()
            error.outputs = [_output(sequence) for sequence in sequences.values()]
            raise
        except BaseException:
            self._engine.cancel_all()
            raise
        trace = self.take_trace()
        outputs = [_output(sequence) for sequence in sequences.values()]
        failed = next((sequence.error for sequence in sequences.values() if sequence.error is not None), None)
        if failed is not None:
            failed.outputs = outputs
            raise failed
        strategy = {"name": self.strategy.strategy_name, **self.strategy.model_dump(mode="json")}
        return RunResult(outputs, compute_metrics(trace), trace, strategy)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Chunk]:
        """Yield the text as it becomes certain; joined, the chunks are the text. Leaving the loop ends the request."""
        own = params or SamplingParams()
        asked = self._encode(prompt)
        request_id = self._engine.submit(
            asked.token_ids, own, seed=self._request_seed(own, 0), prompt=asked.text, behind=asked.behind
        )
        sequence = self._engine.sequence(request_id)
        shown = tokens = 0
        try:
            while sequence.end_s is None:
                self._step()
                ended = sequence.end_s is not None
                certain = len(sequence.stop.text) if ended else sequence.stop.certain_length
                if sequence.error is not None:
                    raise sequence.error
                if certain > shown or ended:
                    new_tokens = sequence.output_ids[tokens:]
                    yield Chunk(
                        sequence.stop.text[shown:certain], new_tokens, sequence.finish_reason if ended else None
                    )
                    shown, tokens = certain, tokens + len(new_tokens)
        finally:
            self._engine.cancel(request_id)

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids that a prompt is run as, chat template included."""
        return self._encode(prompt).token_ids

    def score(self, token_ids: Sequence[int]) -> torch.Tensor:
        """The target's logits `[tokens, vocab]` (float32) after each token of a text, by one plain forward."""
        return self._engine.score(list(token_ids))

    def take_trace(self) -> Trace:
        """What was recorded since the last `run`, `generate` or `take_trace` (for `stream`)."""
        return self._with_token_texts(self._engine.take_trace())

    def trace_so_far(self, first_round: int = 0) -> Trace:
        """What `take_trace` would return now, while recording goes on: for watching a `stream`, between its chunks.

        A request is listed when it ends, and a round's draft tree comes with the round after it. first_round: leave
        out the rounds before this one, for whoever has them already.
        """
        return self._with_token_texts(self._engine.recorder.unclaimed.trace(first_round))

    def _with_token_texts(self, trace: Trace) -> Trace:
        tokenizer = self.target.tokenizer
        if tokenizer is not None and trace.rounds:
            return with_token_texts(trace, lambda ids: tokenizer.decode(ids, skip_special_tokens=False))
        return trace

    def _run_to_end(self, sequences: dict[int, EngineSequence], on_step: OnStep | None) -> None:
        total = sum(sequence.params.max_tokens for sequence in sequences.values())
        done = steps = 0
        shown = progress_bar(total, self.strategy.strategy_name, "tok", enabled=self._progress)
        with shown as bar, self._captures.beside(bar):
            while self._engine.has_work:
                self._step()
                self._captures.done()
                if self._progress:
                    # a request that ends early has no more tokens to wait for
                    now = sum(
                        s.params.max_tokens if s.end_s is not None else len(s.token_ids) - len(s.prompt_ids)
                        for s in sequences.values()
                    )
                    bar.update(now - done)
                    done = now
                steps += 1
                if on_step is not None and on_step(steps, self._engine.recorder.unclaimed.totals) is False:
                    self._engine.cancel_all()

    def _step(self) -> None:
        change = "lower max_batch, or num_blocks so that more is left for steps"
        with explain_out_of_memory("running a round", CacheCapacityError, device=self._device, change=change):
            self._engine.step()

    def _load(self, model: LoadedModel | str, device: str) -> LoadedModel:
        if isinstance(model, LoadedModel):
            return model
        config = self.config
        return load_model(
            model,
            dtype=config.dtype,
            device=device,
            bitwise=config.bitwise,
            kernels=config.kernels,
            progress=self._progress,
        )

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        tokenizer = self.target.tokenizer
        if not isinstance(prompt, str) and not (prompt and isinstance(prompt[0], dict)):
            ids = [int(token) for token in prompt]  # type: ignore[arg-type]
            return EncodedPrompt(None, ids, behind=ids)
        if tokenizer is None:
            raise PromptError("the target has no tokenizer: give token ids instead of text")
        if isinstance(prompt, str):
            if not prompt.strip():
                raise PromptError("the prompt is empty: give some text")
            if not self._chat:
                ids = tokenizer.encode(prompt, add_special_tokens=True)  # such as Llama's begin-of-text
                return EncodedPrompt(prompt, ids, behind=ids)
            messages: list[dict[str, str]] = [{"role": "user", "content": prompt}]
        else:
            messages = [dict(message) for message in prompt]  # type: ignore[arg-type]
        text = tokenizer.apply_chat(messages, add_generation_prompt=True)
        return EncodedPrompt(prompt if isinstance(prompt, str) else text, tokenizer.encode(text), behind=[])

    def _request_seed(self, params: SamplingParams, index: int) -> int:
        if params.seed is not None:
            return params.seed
        digest = hashlib.blake2b(f"{self._seed}:{index}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def _as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or many: text, token ids, or chat messages."""
    if isinstance(prompts, str):
        return [prompts]
    many = list(prompts)
    if not many:
        raise PromptError("no prompt was given")
    if isinstance(many[0], int | dict):
        return [many]  # type: ignore[list-item]
    return many  # type: ignore[return-value]


def _as_params(params: SamplingParams | Sequence[SamplingParams] | None, count: int) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if len(params) != count:
        raise ConfigError(
            f"{len(params)} sampling params were given for {count} prompts: give one for all, or one each"
        )
    return list(params)


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
