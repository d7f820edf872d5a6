"""Widgets over recorded rounds. Each stands alone; those that share a `Selection` move together."""

from __future__ import annotations

from typing import Any

from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.trace.named import named_traces
from ssd_lab.trace.token_texts import Decode
from ssd_lab.widgets.front_end import TabularWidget, traitlets
from ssd_lab.widgets.own import VIEWS
from ssd_lab.widgets.selection import Selection
from ssd_lab.widgets.static_html import summary_table, tables
from ssd_lab.widgets.view_model import view_data

ALL_VIEWS = ("stepper", "text", "cache", "acceptance", "features", "slots", "timeline", "own")


class TraceWidget(TabularWidget):
    """Base of the views: traits `data` (what is shown), `views` (which), `selection` (see `Selection`; without one, a
    telling round of the last run).

    traces: a Trace, anything with a `trace` (a RunResult), a Comparison, or a dictionary of them by name. selection:
    share one among widgets to link them. decode: token ids to text, for traces that do not hold their tokens' texts.
    max_rounds: show only so many rounds of each. Raises ConfigError for anything else.
    """

    shown: tuple[str, ...] = ALL_VIEWS

    kind = traitlets.Unicode("views").tag(sync=True)
    views = traitlets.List(traitlets.Unicode()).tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)
    link = traitlets.Unicode().tag(sync=True)
    clock = traitlets.Unicode("measured", help="of the timeline: measured or simulated").tag(sync=True)
    summary = traitlets.Unicode(help="HTML above the views, such as a result's table").tag(sync=True)

    def __init__(
        self,
        traces: Any,
        *,
        selection: Selection | None = None,
        decode: Decode | None = None,
        max_rounds: int | None = None,
        **traits: Any,
    ) -> None:
        data = view_data(named_traces(traces), decode=decode, max_rounds=max_rounds)
        self.linked = selection or Selection(**data["opening"])
        super().__init__(
            data=data,
            views=list(self.shown),
            selection=self.linked.value,
            link=self.linked.name,
            **traits,
        )
        traitlets.link((self, "selection"), (self.linked, "value"))

    def select(self, **fields: Any) -> None:
        """Go to a round (`round` from 1, or `step` from 0), request, run or place, as `Selection.select`."""
        self.linked.select(**fields)

    def tables(self) -> list[Table]:
        """What is shown of the selected round, as tables."""
        return tables(self.data, self.views, self.selection, self.clock)

    def __repr__(self) -> str:
        return "\n\n".join(table.to_text() for table in [summary_table(self.data), *self.tables()])

    def _repr_html_(self) -> str:
        return "".join(table.to_html() for table in [summary_table(self.data), *self.tables()])


class TreeStepper(TraceWidget):
    """The round's tree: what was verified, what was kept, what was prepared; buttons, slider, arrow keys and play.

    tour: tell the round first, in eight beats.
    """

    shown: tuple[str, ...] = ("stepper",)

    def __init__(self, traces: Any, *, tour: bool = False, **options: Any) -> None:
        if tour:
            self.shown = ("story", "stepper")
        super().__init__(traces, **options)


class TextView(TraceWidget):
    """The generated text, each token marked by where it came from."""

    shown = ("text",)


class AcceptanceView(TraceWidget):
    """Acceptance by position, by prompt and over time, observed beside expected."""

    shown = ("acceptance",)


class CacheView(TraceWidget):
    """The cache of a round, hits and misses, hit rate against fan-out, and the rounds under other settings."""

    shown = ("cache",)


class SlotsView(TraceWidget):
    """The KV cache in a round: what was there, what the target's pass writes, what stays, what is rolled back."""

    shown = ("slots",)


class FeaturesView(TraceWidget):
    """What flows into each guess of an EAGLE3 head: features of three of the target's layers, then its own states."""

    shown = ("features",)


class Timeline(TraceWidget):
    """What target, draft and link did when, measured or on a simulated machine, all runs on one scale. clock:
    `measured` or `simulated`, the one that it opens on.
    """

    shown = ("timeline",)


class Race(TraceWidget):
    """The runs write the same request side by side, each at its speed on the simulated or the measured clock."""

    shown = ("race",)


class OwnView(TraceWidget):
    """One registered view of your own, by its name. Raises ConfigError for a name that nobody registered."""

    def __init__(self, traces: Any, name: str, **options: Any) -> None:
        if name not in VIEWS.names:
            known = ", ".join(VIEWS.names) or "none: @ssd_lab.register_view above a function makes it one"
            raise ConfigError(f"unknown view {name!r}; registered are {known}")
        self.shown = (f"own:{name}",)
        super().__init__(traces, **options)


class Explorer(TraceWidget):
    """Every view at once, linked; those of your own (`ssd_lab.register_view`) too."""

    shown = ALL_VIEWS


def explore(traces: Any, **options: Any) -> Explorer:
    """All views of a trace, a result, a comparison or several of them by name, linked; options as `TraceWidget`."""
    return Explorer(traces, **options)
