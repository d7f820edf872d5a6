"""One configuration, loaded and ready: its prompts, its engine, and one repeat at a time."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch

from ssd_lab.assembly.build import resolve_device
from ssd_lab.assembly.placing import placed
from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.inputs import Input, load_inputs
from ssd_lab.bench.repeat import RepeatResult, RequestResult
from ssd_lab.bench.support import Parts, find_parts
from ssd_lab.common.validation import validated
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.llm import LLM, OnStep
from ssd_lab.models.loader import LoadedModel
from ssd_lab.results import Output, RunResult
from ssd_lab.trace import RequestRecord, Totals, Trace

WARMUP_TOKENS = 32
_ENGINE_FIELDS = (
    "device", "dtype", "max_model_len", "block_size", "threads", "draft_link", "prefix_reuse", "bitwise", "record",
    "eager",
)  # fmt: skip


class Load(Protocol):
    """What `load_model` is, so that sessions can share what they load."""

    def __call__(self, source: str, *, dtype: str, device: str, bitwise: bool, progress: bool) -> LoadedModel:
        """The model of that name or place."""


class Session:
    """An engine for one configuration and the inputs of its data sets. Use as a context manager, or call `close`.

    Raises what `support` and `inputs` raise, before anything runs.
    """

    def __init__(self, config: BenchConfig, load: Load, *, progress: bool = False) -> None:
        self.config = config
        parts = find_parts(config)
        device = resolve_device(config.device)
        self.num_gpus = config.num_gpus if device.type == "cuda" else 0
        engine: dict[str, Any] = {name: getattr(config, name) for name in _ENGINE_FIELDS}
        engine |= {"chat": False, "progress": False, "max_batch": config.batch}
        if config.placement is not None:
            asked = validated(EngineConfig, {"placement": config.placement}, name="bench")
            _, places = placed(asked, parts.strategy)
            self.num_gpus = places.num_gpus
            alone = places.target[0].device if len(places.target) == 1 else None
            self._open_shared(parts, {**engine, "device": "auto", "placement": places.asked}, load, alone)
            return
        if config.num_gpus > 1:
            self._open_shared(parts, {**engine, "device": "auto", "gpus": config.num_gpus}, load, None)
            return
        how: Any = {"dtype": config.dtype, "device": str(device), "bitwise": config.bitwise, "progress": progress}
        target = load(parts.target, **how)
        draft = None if parts.draft is None else load(parts.draft, **how)
        self.inputs = self._inputs_for(target)
        self.llm = LLM(target, draft, parts.strategy, **engine)

    def _open_shared(self, parts: Parts, engine: dict[str, Any], load: Load, alone: str | None) -> None:
        """On several devices, each of which loads its share. alone: the one that has the whole target."""
        target: LoadedModel | str = parts.target
        if alone is not None:
            config = self.config
            target = load(parts.target, dtype=config.dtype, device=alone, bitwise=config.bitwise, progress=False)
        with ExitStack() as unfinished:
            self.llm = unfinished.enter_context(LLM(target, parts.draft, parts.strategy, **engine))
            self.inputs = self._inputs_for(self.llm.target)
            unfinished.pop_all()

    def _inputs_for(self, target: LoadedModel) -> dict[str, list[Input]]:
        return {name: load_inputs(self.config, name, target) for name in self.config.dataset_names}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine; calling it twice is fine."""
        self.llm.close()

    def warm_up(self) -> None:
        """Everything that is captured and compiled, then short passes over the first prompts of each data set; nothing
        of them is kept.
        """
        if self.config.warm_up:
            for name, inputs in self.inputs.items():
                params = self.params(inputs, name, 0, self.config.output_len)
                self.llm.warm_up([each.token_ids for each in inputs], params)
        length = min(WARMUP_TOKENS, self.config.output_len)
        for _ in range(self.config.warmup):
            for inputs in self.inputs.values():
                self.run(inputs[: self.config.batch], "warm-up", 0, length, None)

    def repeat(self, dataset: str, index: int, on_step: OnStep | None = None) -> tuple[RunResult, RepeatResult]:
        """All prompts of a data set, once. Raises KeyboardInterrupt after Ctrl-C: half a repeat is no measurement."""
        return self.repeat_of(self.inputs[dataset], dataset, index, on_step)

    def repeat_of(
        self, inputs: Sequence[Input], dataset: str, index: int, on_step: OnStep | None = None
    ) -> tuple[RunResult, RepeatResult]:
        """The same of these inputs alone."""
        steps = 0

        def count(number: int, totals: Totals) -> bool:
            nonlocal steps
            steps = number
            wanted = on_step is None or on_step(number, totals) is not False
            return wanted and number != self.config.max_steps

        start_s = time.perf_counter()
        run = self.run(inputs, dataset, index, self.config.output_len, count)
        wall_s = time.perf_counter() - start_s
        ended_early = self.config.max_steps is not None and steps >= self.config.max_steps
        if not ended_early and any(output.finish_reason == "cancelled" for output in run.outputs):
            raise KeyboardInterrupt
        return run, _measured(inputs, run, wall_s)

    def run(
        self, inputs: Sequence[Input], dataset: str, repeat: int, max_tokens: int, on_step: OnStep | None = None
    ) -> RunResult:
        """These inputs, measured by nobody."""
        params = self.params(inputs, dataset, repeat, max_tokens)
        torch.set_num_threads(self.llm.threads)  # several sessions may take turns in this process
        return self.llm.run([each.token_ids for each in inputs], params, on_step=on_step)

    def params(self, inputs: Sequence[Input], dataset: str, repeat: int, max_tokens: int) -> list[SamplingParams]:
        """Of each of these inputs."""
        return [
            SamplingParams(
                temperature=self.config.temperature,
                max_tokens=max_tokens,
                ignore_eos=self.config.ignore_eos,
                seed=request_seed(self.config.seed, dataset, repeat, each.prompt.id),
            )
            for each in inputs
        ]


def request_seed(seed: int, dataset: str, repeat: int, prompt_id: str) -> int:
    """A request's own seed: the same for every strategy, another one in each repeat."""
    digest = hashlib.blake2b(f"{seed}/{dataset}/{repeat}/{prompt_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _measured(inputs: Sequence[Input], run: RunResult, wall_s: float) -> RepeatResult:
    """A run's times and counts, from its trace alone."""
    totals = Totals.from_trace(run.trace)
    counts = _counts_by_request(run.trace)
    records = {record.request_id: record for record in run.trace.requests}
    return RepeatResult(
        wall_s=wall_s,
        prefill_s=totals.prefill_time_s,
        decode_s=totals.decode_time_s,
        totals=totals,
        requests=tuple(
            _request(each, output, run.trace, records[output.request_id], counts[output.request_id])
            for each, output in zip(inputs, run.outputs, strict=True)
        ),
        peak_memory_bytes=run.metrics.peak_memory_bytes,
    )


def _counts_by_request(trace: Trace) -> dict[int, dict[str, int]]:
    counts: dict[int, dict[str, int]] = defaultdict(
        lambda: dict.fromkeys(("rounds", "accepted", "tested", "hits", "lookups"), 0)
    )
    for round_record in trace.rounds:
        for row in round_record.sequences:
            own = counts[row.request_id]
            own["rounds"] += 1
            own["accepted"] += row.num_accepted
            own["tested"] += min(row.num_accepted + 1, len(row.draft_tokens))
            own["hits"] += row.cache_hit is True
            own["lookups"] += row.cache_hit is not None
    return counts


def _request(each: Input, output: Output, trace: Trace, record: RequestRecord, counts: dict[str, Any]) -> RequestResult:
    start_s = record.admitted_s
    return RequestResult(
        prompt_id=each.prompt.id,
        num_prompt_tokens=len(output.prompt_ids),
        num_output_tokens=len(output.token_ids),
        finish_reason=output.finish_reason,
        digest=hashlib.blake2b(repr(output.token_ids).encode(), digest_size=8).hexdigest(),
        queue_s=None if start_s is None else trace.elapsed_s(record.arrival_s, start_s),
        first_token_s=None
        if start_s is None or record.first_token_s is None
        else trace.elapsed_s(start_s, record.first_token_s),
        latency_s=None
        if start_s is None or record.end_s is None or output.finish_reason == "cancelled"
        else trace.elapsed_s(start_s, record.end_s),
        **counts,
    )
