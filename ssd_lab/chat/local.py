"""A model in this process that answers, by any strategy."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from typing import Any

from ssd_lab import demo
from ssd_lab.chat.attribution import Attribution
from ssd_lab.chat.pieces import AnswerNumbers, Message, Piece, origins_of
from ssd_lab.common.parsing import parse_strategy
from ssd_lab.config import SamplingParams
from ssd_lab.errors import ConfigError, PromptError, SsdLabError
from ssd_lab.llm import LLM
from ssd_lab.models.loader import LoadedModel
from ssd_lab.models.opened import OpenedModel
from ssd_lab.strategies import StrategyConfig, registry
from ssd_lab.trace import Trace, compute_metrics

OF_THE_BUNDLED = (
    "This target has 17 million parameters and its draft 3 million: they answer in whole sentences, and what they say "
    "is often wrong, the more so the longer the conversation (/reset begins anew). They are here to show how text is "
    "made; --target and --draft take real models."
)
SHOWN_FIELDS = ("k", "f", "mode")  # of a strategy, in its name for a person


class LocalModel:
    """A target and a strategy. engine: fields of `EngineConfig`. warm_up: on a GPU capture graphs before answers.

    Raises as `LLM` does, and ConfigError for a target without a chat template.
    """

    def __init__(
        self,
        target: LoadedModel | str | None,
        draft: LoadedModel | str | None,
        strategy: StrategyConfig,
        *,
        engine: dict[str, Any],
        seed: int = 0,
        progress: bool = False,
        warm_up: bool = True,
    ) -> None:
        self._options: dict[str, Any] = {**engine, "seed": seed, "progress": progress}
        self._warm_up = warm_up
        if target is None:
            target, draft = str(demo.TARGET), str(demo.DRAFT) if draft is None else draft
        self._draft = draft
        self._llm = self._open(target, strategy)
        self._trace = Trace(meta={})
        self._finish_reason, self._seconds = "cancelled", 0.0
        tokenizer = self._llm.target.tokenizer
        if tokenizer is None or not tokenizer.has_chat_template:
            self.close()
            raise ConfigError(
                f"{self._llm.target.source} has no chat template, so it cannot tell who speaks: chat with an "
                "instruction-tuned model, or continue texts with `ssd-lab run`"
            )

    @property
    def name(self) -> str:
        """The target's place, and the strategy."""
        place = "the bundled target" if self._is_bundled else self._llm.target.source
        return f"{place}, {self._strategy_name}"

    def remarks(self) -> list[str]:
        """What to expect of the bundled models."""
        return [OF_THE_BUNDLED] if self._is_bundled else []

    @property
    def context(self) -> int:
        """Longest conversation, in tokens."""
        return self._llm.memory_plan.max_model_len

    def fit(self, messages: Sequence[Message], params: SamplingParams) -> int:
        """How many of the oldest turns must be left out, two messages each; a system message stays.

        Raises PromptError if not even the last message fits.
        """
        head = [message for message in messages[:1] if message["role"] == "system"]
        talk = list(messages[len(head) :])
        for left_out in range((len(talk) + 1) // 2):
            length = len(self._llm.encode([*head, *talk[2 * left_out :]]))
            if length + params.max_tokens <= self.context:
                return left_out
        raise PromptError(
            f"the message takes {length} tokens and the answer up to {params.max_tokens}, and the context has "
            f"{self.context}: write less, or `/set max_tokens` lower"
        )

    def stream(self, messages: Sequence[Message], params: SamplingParams) -> Generator[Piece]:
        """The answer in pieces of one origin each; closing the iterator ends it."""
        attribution, origins = Attribution(self._llm.target.tokenizer), list[str]()
        num_rounds = num_tokens = 0
        self._finish_reason = "cancelled"
        start_s = time.perf_counter()
        try:
            with closing(self._llm.stream(list(messages), params)) as chunks:  # type: ignore[type-var]
                for chunk in chunks:
                    rounds = self._llm.trace_so_far(num_rounds).rounds
                    num_rounds += len(rounds)
                    origins += [origin for each in rounds for row in each.sequences for origin in origins_of(row)]
                    for token_id in chunk.token_ids:
                        attribution.push(token_id, origins[num_tokens] if num_tokens < len(origins) else None)
                        num_tokens += 1
                    if chunk.finish_reason is not None:
                        self._finish_reason = chunk.finish_reason
                    yield from attribution.pieces(chunk.text, is_last=chunk.finish_reason is not None)
        finally:
            self._seconds = time.perf_counter() - start_s
            self._trace = self._llm.take_trace()

    def numbers(self) -> AnswerNumbers:
        """Of the last answer, from its trace."""
        metrics = compute_metrics(self._trace)
        counts: dict[str, int] = {}
        for record in (row for each in self._trace.rounds for row in each.sequences):
            for origin in origins_of(record):
                counts[origin] = counts.get(origin, 0) + 1
        degraded = self._trace.meta.get("degraded")
        notes = [f"degraded to autoregressive: {degraded}"] if degraded else []
        notes += [] if metrics.exact or not self._trace.rounds else [f"NOT EXACT: {metrics.lossy_reason}"]
        first = metrics.time_to_first_token_s
        return AnswerNumbers(
            strategy=self._strategy_name,
            num_tokens=metrics.num_output_tokens,
            finish_reason=self._finish_reason,
            seconds=self._seconds,
            first_token_s=None if first is None else first.mean,
            tokens_per_second=metrics.tokens_per_second,
            tokens_per_round=metrics.tokens_per_round,
            acceptance_rate=metrics.acceptance_rate,
            cache_hit_rate=metrics.cache_hit_rate,
            origins=counts,
            notes=tuple(notes),
        )

    def trace(self) -> Trace:
        """The last answer's rounds. Raises ConfigError before the first."""
        if not self._trace.rounds:
            raise ConfigError("no rounds were recorded yet: ask something first (and leave `record` on)")
        return self._trace

    def choices(self) -> str:
        """The strategies."""
        return f"{', '.join(registry.all())}; fields follow the name, as in async_tree k=4 (`ssd-lab strategies NAME`)"

    def switch(self, text: str) -> None:
        """Another strategy over the same models. Raises ConfigError, or what opening it raised; then the one before
        goes on.
        """
        fields = parse_strategy(text)
        chosen = registry.config(fields.pop("strategy"), fields)
        target, before = self._llm.target, self._llm.strategy
        with suppress(Exception):  # an engine that failed says so here once more
            self._llm.close()  # first: on a GPU both would not fit
        try:
            self._llm = self._open(target, chosen)
        except (SsdLabError, KeyboardInterrupt):
            self._llm = self._open(target, before)
            raise

    def close(self) -> None:
        """Stop the draft and free everything."""
        self._llm.close()

    @property
    def _is_bundled(self) -> bool:
        return self._llm.target.source == str(demo.TARGET)

    @property
    def _strategy_name(self) -> str:
        strategy = self._llm.strategy
        fields = {name: getattr(strategy, name, None) for name in SHOWN_FIELDS}
        shown = ", ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        return f"{strategy.strategy_name} ({shown})" if shown else strategy.strategy_name

    def _open(self, target: LoadedModel | str | None, strategy: StrategyConfig) -> LLM:
        llm = LLM(target, self._draft, strategy, **self._options)
        try:
            if llm.draft is not None and not isinstance(llm.draft, OpenedModel):
                self._draft = llm.draft  # read once for all strategies
            if self._warm_up:
                llm.warm_up(batch_sizes=(1,))
        except BaseException:
            llm.close()
            raise
        return llm
