"""The same prompts under several strategies, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssd_lab import demo
from ssd_lab.common.late import late
from ssd_lab.display.tables import COMPARISON_COLUMNS, Row, Table
from ssd_lab.errors import ConfigError
from ssd_lab.results.run_result import RunResult, estimated
from ssd_lab.results.speeds import notes_on_processor, notes_on_turns, speedup

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ssd_lab.explain import Explanation

_BASELINE = "autoregressive"


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
        return [run.row(name) | _against(baseline, run) for name, run in self.runs.items()]

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
        own = [f"{name}: {note}" for name, run in self.runs.items() for note in run.warnings()]
        return [
            *self._in_words(),
            *_notes_on_settings(self.runs),
            *notes_on_turns([run.speeds for run in self.runs.values()]),
            *notes_on_processor({name: run.metrics.processor_share for name, run in self.runs.items()}),
            *_notes_on_threads(self.runs),
            *own,
            f"simulated: these rounds on the virtual clock of {late('PUBLISHED_70B').name}, not a measurement",
        ]


def _against(baseline: RunResult | None, run: RunResult) -> Row:
    """What only makes sense beside other runs, whole ones."""
    if run.interrupted or (baseline is not None and baseline.interrupted):
        baseline = None
    same_text = None
    if baseline is not None:
        pairs = zip(run.outputs, baseline.outputs, strict=False)  # by prompt: request ids are each run's own
        same_text = sum(ours.token_ids == theirs.token_ids for ours, theirs in pairs)
    own = run.speeds
    return {
        **estimated("speedup", None if baseline is None else speedup(own, own if run is baseline else baseline.speeds)),
        "same_text": same_text,
        "simulated_tokens_per_second": _simulated_tokens_per_second(run),
    }


def _simulated_hardware() -> str:
    """The machine of a comparison's simulated speeds."""
    return str(late("PUBLISHED_70B").name)


def _simulated_tokens_per_second(run: RunResult) -> float | None:
    try:
        return run.simulated().tokens_per_second
    except ConfigError:  # too little was recorded to replay
        return None


def _notes_on_settings(runs: dict[str, RunResult]) -> list[str]:
    """What was run, as far as it is the same for all."""
    metas = [run.trace.meta for run in runs.values()]
    said = []
    for name in ("k", "f"):
        values = {own[name] for meta in metas if (own := meta.get("strategy", {})).get(name) is not None}
        said += [f"{name} = {value}" for value in values if len(values) == 1]
    heats = {request.params.get("temperature", 0) for run in runs.values() for request in run.trace.requests}
    said += [f"temperature {heat:g}" for heat in heats if len(heats) == 1]
    for role, bundled in (("target", demo.TARGET), ("draft", demo.DRAFT)):
        paths = {str(meta[role]) for meta in metas if meta.get(role)}
        said += [f"{role} {'bundled' if path == str(bundled) else path}" for path in paths if len(paths) == 1]
    prompts = {len(run.outputs) for run in runs.values()}
    most = max((len(one.sequences) for run in runs.values() for one in run.trace.rounds), default=0)
    together = "one at a time" if most == 1 else f"up to {most} at a time"
    said += [f"{count} prompts, {together}" for count in prompts if len(prompts) == 1 and count > 1 and most]
    return [", ".join(said)] if said else []


def _notes_on_threads(runs: dict[str, RunResult]) -> list[str]:
    """What the strategies had to compute with, where that is CPU threads."""
    given = {run.trace.meta.get("threads") for run in runs.values() if run.trace.meta.get("device") == "cpu"}
    threads = next(iter(given)) if len(given) == 1 else None
    if threads is None:
        return []
    each = f"{threads} CPU thread{'s' * (threads > 1)}"
    beside = any("draft" in run.metrics.lanes and run.metrics.cache_hit_rate is not None for run in runs.values())
    return [f"{each} for every target" + ("; a draft that works meanwhile has its own" if beside else "")]
