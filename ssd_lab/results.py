"""What a run hands back: texts, numbers and the trace, with displays for notebooks and terminals."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ssd_lab.common.late import late
from ssd_lab.display.tables import COMPARISON_COLUMNS, RUN_COLUMNS, Row, Table
from ssd_lab.errors import ConfigError, RunInterrupted
from ssd_lab.trace import Metrics, Trace

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ssd_lab.explain import Explanation
    from ssd_lab.simulate import Simulation

FinishReason = Literal["stop", "length", "cancelled", "error"]
_SHOWN_CHARACTERS = 160
_BASELINE = "autoregressive"


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
    Ctrl-C ended it before all outputs were finished.
    """

    outputs: list[Output]
    metrics: Metrics
    trace: Trace
    strategy: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False

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
        return {"strategy": self.strategy, "metrics": numbers, "outputs": outputs, "interrupted": self.interrupted}

    def __repr__(self) -> str:
        return f"{self._first_text()!r}\n{self._line()}"

    __str__ = __repr__

    def __rich__(self) -> RenderableType:
        return self._table().to_rich()

    def _repr_html_(self) -> str:
        return self._table().turned().to_html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return late("cell_bundle")({self.strategy_name: self.trace}, self._repr_html_())

    def _table(self) -> Table:
        row = _metrics_row(self.strategy_name, self)
        return RUN_COLUMNS.table([row], lead=self._first_text(), notes=self._notes())

    def _line(self) -> str:
        shown = zip(self._table().columns, self._table().rows[0], strict=True)
        parts = [cell if title == "run" else f"{title} {cell}" for title, cell in shown if cell != "-"]
        return " | ".join([*parts, *self._notes()])

    def _first_text(self) -> str:
        if not self.outputs:
            return "(no outputs)"
        first = self.outputs[0]
        text = first.text if first.error is None else f"{first.text} [error: {first.error}]"
        if len(text) > _SHOWN_CHARACTERS:
            text = text[: _SHOWN_CHARACTERS - 1] + "…"
        more = len(self.outputs) - 1
        return f"{text} (+ {more} more)" if more else text

    def _notes(self) -> list[str]:
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


@dataclass(frozen=True, repr=False)
class Comparison:
    """The same prompts under several strategies, by the name each run is shown with.

    Speed-ups and `same_text` refer to the autoregressive run of the comparison; without one they are None, and so they
    are where Ctrl-C cut one of the two.
    """

    runs: dict[str, RunResult]

    def __getitem__(self, name: str) -> RunResult:
        if name not in self.runs:
            raise ConfigError(f"no run {name!r} in this comparison; there are: {', '.join(self.runs) or 'none'}")
        return self.runs[name]

    @property
    def baseline(self) -> RunResult | None:
        """The autoregressive run, if there is one."""
        return next((run for run in self.runs.values() if run.strategy_name == _BASELINE), self.runs.get(_BASELINE))

    def rows(self) -> list[Row]:
        """One plain dictionary a run; unknown numbers are None, `simulated_tokens_per_second` was never measured."""
        baseline = self.baseline
        return [_metrics_row(name, run) | _against(baseline, run) for name, run in self.runs.items()]

    def explain(self, hardware: Any = None) -> Explanation:
        """Why each speculative run was as fast as it was, and what to blame where it does not pay; arguments and errors
        as `ssd_lab.explain`.
        """
        return late("explain")({name: run.trace for name, run in self.runs.items()}, hardware)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "simulated_hardware": _simulated_hardware(),
            "rows": self.rows(),
            "interrupted": any(run.interrupted for run in self.runs.values()),
        }

    def to_markdown(self) -> str:
        """A table for a README or an issue."""
        return self._table().to_markdown()

    def __repr__(self) -> str:
        return self.to_markdown()

    __str__ = __repr__

    def __rich__(self) -> RenderableType:
        return self._table().to_rich()

    def _repr_html_(self) -> str:
        return self._table().turned().to_html()  # a page is seldom as wide as ten columns

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return late("cell_bundle")({name: run.trace for name, run in self.runs.items()}, self._repr_html_())

    def _table(self) -> Table:
        return COMPARISON_COLUMNS.table(self.rows(), notes=self._notes())

    def _in_words(self) -> list[str]:
        """What the table says, in a sentence; or what it lacks."""
        baseline = self.baseline
        if baseline is None:
            return ["speed-up and same text need a run of autoregressive beside the others"]
        rows = [row for row in self.rows() if row["tokens_per_round"] and row["strategy"] != _BASELINE]
        best = max(rows, key=lambda row: row["tokens_per_round"], default=None)
        if best is None:
            return []
        said = f"{best['name']}: {best['tokens_per_round']:.2f} tokens for each pass of the target; alone it gives one"
        return [f"{said}; the same text" if best["same_text"] == best["num_outputs"] else said]

    def _notes(self) -> list[str]:
        own = [f"{name}: {note}" for name, run in self.runs.items() for note in run._notes()]
        return [
            *self._in_words(),
            *own,
            f"simulated: these rounds on the virtual clock of {_simulated_hardware()}, not a measurement",
        ]


def _metrics_row(name: str, run: RunResult) -> Row:
    metrics = run.metrics
    first_token = metrics.time_to_first_token_s
    return {
        "name": name,
        "strategy": run.strategy_name,
        "tokens_per_second": metrics.tokens_per_second,
        "tokens_per_round": metrics.tokens_per_round,
        "acceptance_rate": metrics.acceptance_rate,
        "cache_hit_rate": metrics.cache_hit_rate,
        "predicted_cache_hit_rate": metrics.predicted_cache_hit_rate,
        "time_to_first_token_s": None if first_token is None else first_token.mean,
        "num_outputs": len(run.outputs),
        "interrupted": run.interrupted,
        "num_output_tokens": metrics.num_output_tokens,
        "exact": metrics.exact,
        "lossy_reason": metrics.lossy_reason,
    }


def _against(baseline: RunResult | None, run: RunResult) -> Row:
    """What only makes sense beside other runs, whole ones."""
    if run.interrupted or (baseline is not None and baseline.interrupted):
        baseline = None
    speed, base_speed = run.metrics.tokens_per_second, baseline.metrics.tokens_per_second if baseline else None
    same_text = None
    if baseline is not None:
        pairs = zip(run.outputs, baseline.outputs, strict=False)  # by prompt: request ids are each run's own
        same_text = sum(ours.token_ids == theirs.token_ids for ours, theirs in pairs)
    return {
        "speedup": speed / base_speed if speed and base_speed else None,
        "same_text": same_text,
        "simulated_tokens_per_second": _simulated_tokens_per_second(run),
    }


def _simulated_tokens_per_second(run: RunResult) -> float | None:
    try:
        return run.simulated().tokens_per_second
    except ConfigError:  # too little was recorded to replay
        return None


def _simulated_hardware() -> str:
    return late("PUBLISHED_70B").name
