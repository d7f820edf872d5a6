"""Ways to generate the same tokens, ours and transformers', and the turns that they take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ssd_lab.common.progress import progress_bar
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.llm import LLM

PLAIN, ASSISTED, ASSISTED_DYNAMIC, LOOKUP = (
    "transformers", "transformers_assisted", "transformers_assisted_dynamic", "transformers_prompt_lookup",
)  # fmt: skip
PEERS = (PLAIN, ASSISTED, ASSISTED_DYNAMIC, LOOKUP)
_SCHEDULE = ("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold")

Ids = list[int]
Generate = Callable[[list[Ids], int], list[Ids]]  # prompts, most new tokens of each -> new tokens of each


@dataclass
class Contender:
    """One way to generate, and what it took. seconds: all prompts once, one entry a turn; token_ids: the last turn's.

    threads: CPU threads it may use. batch: sequences that it decodes together.
    """

    name: str
    generate: Generate
    threads: int
    batch: int = 1
    seconds: list[float] = field(default_factory=list)
    token_ids: list[Ids] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Tokens of one turn."""
        return sum(map(len, self.token_ids))

    @property
    def tokens_per_second(self) -> float:
        """Median over the turns; prefill included."""
        return self.num_tokens / statistics.median(self.seconds)


def peer_names(wanted: Sequence[str], *, has_draft: bool) -> list[str]:
    """What `transformers` alone stands for: all its ways that these models allow. Raises ConfigError for other names,
    and for assisted generation without a draft model."""
    names: list[str] = []
    for name in wanted:
        if name not in PEERS:
            raise ConfigError(f"peer {name!r} is not known: {', '.join(PEERS)} are; {PLAIN} stands for all of them")
        if name in (ASSISTED, ASSISTED_DYNAMIC) and not has_draft:
            raise ConfigError(f"peer {name} needs a draft model: give one, or take {PLAIN} or {LOOKUP}")
        every = [each for each in PEERS if has_draft or each not in (ASSISTED, ASSISTED_DYNAMIC)]
        names += every if name == PLAIN else [name]
    return list(dict.fromkeys(names))


def speedup(fast: Contender, slow: Contender) -> float:
    """How many times as fast one is as another: the median of the ratios within a turn, each timed back to back."""
    tokens = fast.num_tokens / max(slow.num_tokens, 1)
    return statistics.median(tokens * theirs / ours for ours, theirs in zip(fast.seconds, slow.seconds, strict=True))


def take_turns(
    contenders: Sequence[Contender], prompts: list[Ids], max_tokens: int, *, repeats: int, warmup: int, progress: bool
) -> None:
    """Run every contender on all prompts, again and again, so that drift hits all alike; fills in what each took."""
    with progress_bar((repeats + warmup) * len(contenders), "peers", "run", enabled=progress) as bar:
        for turn in range(-warmup, repeats):
            for contender in contenders:
                with _threads(contender.threads):
                    start_s = time.perf_counter()
                    texts = contender.generate(prompts, max_tokens)
                    duration_s = time.perf_counter() - start_s
                if turn >= 0:
                    contender.seconds.append(duration_s)
                    contender.token_ids = texts
                bar.update(1)


def ours(name: str, llm: LLM, params: SamplingParams) -> Contender:
    """One of our engines; params but for the length."""

    def generate(prompts: list[Ids], max_tokens: int) -> list[Ids]:
        outputs = llm.generate(prompts, params.model_copy(update={"max_tokens": max_tokens}))
        return [output.token_ids for output in outputs]

    return Contender(name, generate, llm.threads, llm.config.max_batch)


class TransformersPair:
    """A target, and the draft if there is one, as transformers loads them; makes its contenders.

    target, draft: folders, hub ids or .gguf files. temperature: 0 is greedy. eos_token_ids: what ends a text (none:
    every text is as long as allowed).
    """

    def __init__(
        self,
        target: str,
        draft: str | None,
        *,
        dtype: torch.dtype,
        device: str,
        threads: int,
        temperature: float = 0.0,
        eos_token_ids: Sequence[int] = (),
    ) -> None:
        self._device, self._threads = device, threads
        self._model = _load(target, dtype, device)
        self._assistant: Any = None if draft is None else _load(draft, dtype, device)
        drafting = getattr(self._assistant, "generation_config", None)
        self._own_schedule = [getattr(drafting, name, None) for name in _SCHEDULE]
        samples = temperature > 0
        settings = {
            "do_sample": samples, "temperature": temperature if samples else 1.0, "top_k": 0 if samples else 50,
            "top_p": 1.0, "pad_token_id": 0, "eos_token_id": list(eos_token_ids) or None,
        }  # fmt: skip
        for generation in (self._model.generation_config, drafting):
            for name, value in settings.items() if generation is not None else ():
                setattr(generation, name, value)

    def generate(self, name: str, batch: int = 1) -> Contender:
        """Autoregressive, `batch` sequences at a time, padded on the left."""
        return self._contender(name, batch)

    def assisted(self, name: str, k: int | None = None) -> Contender:
        """Assisted generation, one sequence at a time: k draft tokens a round as ours, or None for its own schedule."""
        inner = self._contender(name, assistant_model=self._assistant)
        schedule = self._own_schedule if k is None else (k, "constant", 0.0)

        def generate(prompts: list[Ids], max_tokens: int) -> list[Ids]:
            for field_, value in zip(_SCHEDULE, schedule, strict=True):
                setattr(self._assistant.generation_config, field_, value)
            return inner.generate(prompts, max_tokens)

        return Contender(name, generate, self._threads)

    def prompt_lookup(self, name: str, k: int) -> Contender:
        """Drafts copied from earlier in the text, one sequence at a time."""
        return self._contender(name, prompt_lookup_num_tokens=k)

    def _contender(self, name: str, batch: int = 1, **options: Any) -> Contender:
        @torch.inference_mode()
        def generate(prompts: list[Ids], max_tokens: int) -> list[Ids]:
            texts: list[Ids] = []
            with _quiet_transformers():
                for start in range(0, len(prompts), batch):
                    texts += self._generate_together(prompts[start : start + batch], max_tokens, options)
            return texts

        return Contender(name, generate, self._threads, batch)

    def _generate_together(self, prompts: list[Ids], max_tokens: int, options: dict[str, Any]) -> list[Ids]:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=self._device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self._device)
        mask = (torch.arange(width, device=self._device) >= width - lengths[:, None]).to(torch.int64)
        output = self._model.generate(ids, attention_mask=mask, max_new_tokens=max_tokens, **options)
        ends = set(self._model.generation_config.eos_token_id or ())
        return [_until(row, ends) for row in output[:, width:].tolist()]


def _until(token_ids: Ids, ends: set[int]) -> Ids:
    """Without the padding behind the end."""
    end = next((index for index, token in enumerate(token_ids) if token in ends), len(token_ids))
    return token_ids[: end + 1]


def _load(model: str, dtype: torch.dtype, device: str) -> Any:
    from transformers import AutoModelForCausalLM

    path = Path(model)
    place = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    with _quiet_transformers():
        loaded: Any = AutoModelForCausalLM.from_pretrained(str(path.parent) if place else model, dtype=dtype, **place)
    return loaded.to(torch.device(device)).eval()


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its own progress bars and advice; its errors still raise."""
    from transformers.utils import logging

    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
