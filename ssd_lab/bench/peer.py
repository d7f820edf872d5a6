"""Speed beside transformers: the same weights, dtype, prompts and lengths, in one run, taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ssd_lab.api import LLM
from ssd_lab.config import SamplingParams
from ssd_lab.models.loader import resolve_dtype
from ssd_lab.progress import progress_bar

Generate = Callable[[list[int], int], list[int]]  # prompt ids, tokens -> new token ids


@dataclass
class Contender:
    """One way to generate, and what it took. seconds[repeat]: all prompts once."""

    name: str
    generate: Generate
    seconds: list[float] = field(default_factory=list)
    token_ids: list[list[int]] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """Median over the repeats; prefill included."""
        return sum(map(len, self.token_ids)) / statistics.median(self.seconds)


@dataclass(frozen=True)
class PeerReport:
    """Tokens per second of each contender; ratios are medians of the ratios within a repeat."""

    contenders: list[Contender]
    settings: dict[str, Any]

    def named(self, name: str) -> Contender:
        """The contender of that name."""
        return next(contender for contender in self.contenders if contender.name == name)

    def ratio(self, name: str, over: str) -> float:
        """How many times as fast `name` is as `over`: the median over the repeats, each timed back to back."""
        fast, slow = self.named(name), self.named(over)
        tokens = sum(map(len, fast.token_ids)) / sum(map(len, slow.token_ids))
        return statistics.median(
            tokens * theirs / ours for ours, theirs in zip(fast.seconds, slow.seconds, strict=True)
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a contender."""
        first = self.contenders[0]
        own = self.named("autoregressive").token_ids
        return [
            {
                "name": contender.name,
                "tokens_per_second": contender.tokens_per_second,
                "over_transformers": self.ratio(contender.name, first.name),
                "over_autoregressive": self.ratio(contender.name, "autoregressive"),
                "same_text": sum(a == b for a, b in zip(contender.token_ids, own, strict=True)),
                "prompts": len(own),
            }
            for contender in self.contenders
        ]


def compare_with_transformers(
    target: str,
    draft: str,
    prompts: list[str],
    *,
    k: int = 6,
    f: int = 3,
    max_tokens: int = 64,
    repeats: int = 5,
    dtype: str = "auto",
    threads: int | None = None,
    progress: bool = True,
) -> PeerReport:
    """Batch 1, temperature 0, every request `max_tokens` long. Contenders take turns, so that drift hits all alike."""
    name = str(resolve_dtype(dtype, "cpu")).removeprefix("torch.")
    own: dict[str, Any] = {"dtype": name, "max_batch": 1, "progress": False, "record": False}
    knobs: dict[str, dict[str, Any]] = {"autoregressive": {}, "sync_chain": {"k": k}, "async_tree": {"k": k, "f": f}}
    with ExitStack() as stack:
        llms = {
            strategy: stack.enter_context(LLM(target, draft, strategy, **fields, **own))
            for strategy, fields in knobs.items()
        }
        encoded = [llms["autoregressive"].encode(prompt) for prompt in prompts]
        contenders = [
            *_transformers(target, draft, k, name),
            *(Contender(label, _ours(llm)) for label, llm in llms.items()),
        ]
        with progress_bar((repeats + 1) * len(contenders), "peers", "run", enabled=progress) as bar:
            for repeat in range(repeats + 1):  # the first one warms up
                for contender in contenders:
                    with _threads(threads_for(contender.name, llms, threads)):
                        start_s = time.perf_counter()
                        texts = [contender.generate(ids, max_tokens) for ids in encoded]
                        duration_s = time.perf_counter() - start_s
                    if repeat > 0:
                        contender.seconds.append(duration_s)
                        contender.token_ids = texts
                    bar.update(1)
    settings = {"k": k, "f": f, "max_tokens": max_tokens, "repeats": repeats, "dtype": name, "prompts": len(prompts)}
    return PeerReport(contenders, settings)


def threads_for(name: str, llms: dict[str, LLM], threads: int | None) -> int:
    """CPU threads of a contender: what its engine chose, or all for the others."""
    if threads is not None:
        return threads
    return llms[name].threads if name in llms else max(llm.threads for llm in llms.values())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ours(llm: LLM) -> Generate:
    def generate(token_ids: list[int], count: int) -> list[int]:
        return llm.generate([token_ids], SamplingParams(max_tokens=count, ignore_eos=True))[0].token_ids

    return generate


def _transformers(target: str, draft: str, k: int, dtype: str) -> list[Contender]:
    from transformers import AutoModelForCausalLM

    loaded = [
        AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval() for path in (target, draft)
    ]
    model, assistant = loaded
    for each in loaded:  # greedy, and never stopping early: every contender makes the same number of tokens
        each.generation_config.do_sample = False
        each.generation_config.eos_token_id = None
        each.generation_config.pad_token_id = 0

    def generator(**options: Any) -> Generate:
        @torch.inference_mode()
        def generate(token_ids: list[int], count: int) -> list[int]:
            ids = torch.tensor([token_ids])
            output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, **options)
            return output[0, len(token_ids) :].tolist()

        return generate

    def fixed_length(token_ids: list[int], count: int) -> list[int]:
        """Assisted generation with k draft tokens a round, as ours has."""
        settings = assistant.generation_config
        before = (
            settings.num_assistant_tokens,
            settings.num_assistant_tokens_schedule,
            settings.assistant_confidence_threshold,
        )
        settings.num_assistant_tokens, settings.num_assistant_tokens_schedule = k, "constant"
        settings.assistant_confidence_threshold = 0.0
        try:
            return generator(assistant_model=assistant)(token_ids, count)
        finally:
            (
                settings.num_assistant_tokens,
                settings.num_assistant_tokens_schedule,
                settings.assistant_confidence_threshold,
            ) = before

    return [
        Contender("transformers generate", generator()),
        Contender("transformers assisted (its defaults)", generator(assistant_model=assistant)),
        Contender(f"transformers assisted (k = {k})", fixed_length),
    ]
