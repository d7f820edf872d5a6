"""One run: its texts, its numbers, every round, and how it shows itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ssd_lab.common.late import late
from ssd_lab.common.statistics import Estimate, student_interval
from ssd_lab.display.tables import RUN_COLUMNS, Row, Table
from ssd_lab.errors import ConfigError, RunInterrupted
from ssd_lab.results.speeds import notes_on_processor, notes_on_turns
from ssd_lab.trace import Metrics, SequenceRound, Trace

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ssd_lab.explain import Explanation
    from ssd_lab.simulate import Simulation

FinishReason = Literal["stop", "length", "cancelled", "error"]
_SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Output:
    """One request's result. error: what went wrong where finish_reason is `error`; tokens made before it are kept."""

    request_id: int
    prompt: str | None
    prompt_ids: list[int]
    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    logprobs: list[dict[str, Any]] | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON if the log-probabilities are."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, repr=False)
class RunResult:
    """A run: one output for each prompt, metrics, every round, and the strategy's fields with its `name`. interrupted:
    Ctrl-C ended it before all outputs were finished. turns: tokens per second of each turn, where it was repeated; all
    else is of the first one.
    """

    outputs: list[Output]
    metrics: Metrics
    trace: Trace
    strategy: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    turns: tuple[float, ...] = ()

    @property
    def num_finished(self) -> int:
        """Outputs that came to their own end."""
        return sum(output.finish_reason in ("stop", "length") for output in self.outputs)

    def whole(self) -> RunResult:
        """Itself. Raises RunInterrupted if Ctrl-C ended it."""
        if self.interrupted:
            raise RunInterrupted(self, f"interrupted: {self.num_finished} of {len(self.outputs)} outputs are finished")
        return self

    @property
    def strategy_name(self) -> str:
        """The strategy's registered name."""
        return str(self.strategy.get("name", "unknown"))

    def rounds(self, prompt: int = 0) -> list[SequenceRound]:
        """What happened to one prompt (by its place), round by round; empty if rounds were not recorded. Raises
        ConfigError for a place that there is not.
        """
        if not 0 <= prompt < len(self.outputs):
            raise ConfigError(f"no prompt {prompt}; this run had {len(self.outputs)}, counted from 0")
        own = self.outputs[prompt].request_id
        return [row for one in self.trace.rounds for row in one.sequences if row.request_id == own]

    def round(self, number: int, prompt: int = 0) -> SequenceRound:
        """One of them, counted from 1 as on the screen. Raises ConfigError for one that there is not."""
        found = self.rounds(prompt)
        if not 1 <= number <= len(found):
            raise ConfigError(f"no round {number}; prompt {prompt} has rounds 1 to {len(found)}")
        return found[number - 1]

    def words(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token that these rounds mention; of others its number, as `#7`."""
        texts = self.trace.meta.get("token_texts", {})
        return [texts.get(str(token), f"#{token}") for token in token_ids]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The same as one text; it also goes where a function that decodes is wanted."""
        return "".join(self.words(token_ids))

    def simulated(self, hardware: Any = None, **options: Any) -> Simulation:
        """These rounds on another machine's virtual clock; arguments and errors as `ssd_lab.simulate`."""
        return late("simulate")(self.trace, late("PUBLISHED_70B") if hardware is None else hardware, **options)

    def explain(self, hardware: Any = None) -> Explanation:
        """Why it was as fast as it was; arguments and errors as `ssd_lab.explain`."""
        return late("explain")(self.trace, hardware)

    def as_dict(self) -> dict[str, Any]:
        """Outputs, metrics and strategy as plain data (the trace has its own file format)."""
        outputs = [output.as_dict() for output in self.outputs]
        numbers = self.metrics.as_dict()
        return {
            "strategy": self.strategy,
            "metrics": numbers,
            "outputs": outputs,
            "interrupted": self.interrupted,
            "turns": list(self.turns),
        }

    @property
    def speeds(self) -> Sequence[float]:
        """Tokens per second of each turn; one where it was not repeated, none where nothing was timed."""
        once = self.metrics.tokens_per_second
        return self.turns or ((once,) if once else ())

    def row(self, name: str) -> Row:
        """What it tells by itself, as plain numbers under this name; unknown ones None."""
        metrics, speeds = self.metrics, self.speeds
        first_token = metrics.time_to_first_token_s
        return {
            "name": name,
            "strategy": self.strategy_name,
            **estimated("tokens_per_second", student_interval(speeds) if speeds else None),
            "num_turns": max(1, len(self.turns)),
            "tokens_per_round": metrics.tokens_per_round,
            "acceptance_rate": metrics.acceptance_rate,
            "cache_hit_rate": metrics.cache_hit_rate,
            "predicted_cache_hit_rate": metrics.predicted_cache_hit_rate,
            "time_to_first_token_s": None if first_token is None else first_token.mean,
            "processor_share": metrics.processor_share,
            "num_outputs": len(self.outputs),
            "interrupted": self.interrupted,
            "num_output_tokens": metrics.num_output_tokens,
            "exact": metrics.exact,
            "lossy_reason": metrics.lossy_reason,
        }

    def __repr__(self) -> str:
        return "\n".join([repr(self._first_text()), self._line(), *self.notes()])

    __str__ = __repr__

    def __rich__(self) -> RenderableType:
        return self._table().to_rich()

    def _repr_html_(self) -> str:
        table = self._table().turned()
        return dataclasses.replace(table, rows=[row for row in table.rows if row[1] != "-"]).to_html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return late("cell_bundle")({self.strategy_name: self.trace}, self._repr_html_())

    def _table(self) -> Table:
        return RUN_COLUMNS.table([self.row(self.strategy_name)], lead=self._first_text(), notes=self.notes())

    def _line(self) -> str:
        shown = zip(self._table().columns, self._table().rows[0], strict=True)
        parts = [cell if title == "run" else f"{title} {cell}" for title, cell in shown if cell != "-"]
        return " | ".join(parts)

    def _first_text(self) -> str:
        if not self.outputs:
            return "(no outputs)"
        first = self.outputs[0]
        text = first.text if first.error is None else f"{first.text} [error: {first.error}]"
        if len(text) > _SHOWN_CHARACTERS:
            text = text[: _SHOWN_CHARACTERS - 1] + "…"
        more = len(self.outputs) - 1
        return f"{text} (+ {more} more)" if more else text

    def notes(self) -> list[str]:
        """What its numbers mean, and what is to be known of them."""
        turns = notes_on_turns([self.turns]) if self.turns else []
        return [
            *self._in_words(),
            *self._together(),
            *turns,
            *notes_on_processor({self.strategy_name: self.metrics.processor_share}),
            *self.warnings(),
        ]

    def _in_words(self) -> list[str]:
        metrics = self.metrics
        if not metrics.tokens_per_round or metrics.acceptance_rate is None or not metrics.exact:
            return []
        greedy = all(not request.params.get("temperature") for request in self.trace.requests)
        text = "the text is the target's own" if greedy else "the text is a draw by the target's own probabilities"
        return [f"{metrics.tokens_per_round:.2f} tokens for each pass of the target, which alone gives one; {text}"]

    def _together(self) -> list[str]:
        """Speeds of a batch and of one request alone are no two measures of the same."""
        most = max((len(one.sequences) for one in self.trace.rounds), default=0)
        if len(self.outputs) < 2 or not most:
            return []
        how = "one at a time" if most == 1 else f"up to {most} at a time, and tokens/s counts all of them"
        return [f"{len(self.outputs)} requests, {how} (max_batch, --batch)"]

    def warnings(self) -> list[str]:
        """What a reader must not overlook."""
        notes = [] if self.metrics.exact else [f"NOT EXACT: {self.metrics.lossy_reason}"]
        if self.interrupted:
            notes.append(f"INTERRUPTED: {self.num_finished} of {len(self.outputs)} outputs are finished")
        if self.metrics.num_untimed_rounds:
            notes.append(
                f"{self.metrics.num_untimed_rounds} of {self.metrics.num_rounds} rounds are in no rate: graphs were "
                f"captured and kernels compiled in them; that took {self.metrics.preparation_time_s:.1f} s of this run "
                "and can be done before it (warm_up)"
            )
        degraded = self.trace.meta.get("degraded")  # set where a dead draft left only autoregressive decoding
        notes += self.trace.meta.get("drafts", [])  # of several, or of one that may be started again
        return [*notes, f"DEGRADED to autoregressive: {degraded}"] if degraded else notes


def estimated(key: str, estimate: Estimate | None) -> Row:
    """A number of a row, with its interval."""
    if estimate is None:
        return {key: None, f"{key}_low": None, f"{key}_high": None}
    return {key: estimate.mean, f"{key}_low": estimate.low, f"{key}_high": estimate.high}
