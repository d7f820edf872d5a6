"""The report as one HTML page that needs no network: tables, and plotly figures with their script inside."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ssd_lab.bench.figures import FIGURES
from ssd_lab.bench.report_svg import BARS
from ssd_lab.bench.result import BenchResult
from ssd_lab.errors import ConfigError

if TYPE_CHECKING:
    from ssd_lab.bench.report import Named, Section

_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
"""


def html_page(title: str, sections: Sequence[Section], runs: Named) -> str:
    """The whole page. Raises ConfigError that says what to install if plotly is missing."""
    try:
        import plotly.graph_objects as graph
    except ImportError as error:
        raise ConfigError(
            "the HTML report's figures need plotly, which is not installed: pip install 'ssd_lab[notebook]', or write "
            "the Markdown report alone with --no-html"
        ) from error
    figures = [_bars(graph, key, runs) for key in BARS] + [_latencies(graph, runs), _positions(graph, runs)]
    drawn = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0)
        for number, figure in enumerate(figure for figure in figures if figure.data)
    ]
    body = [f"<h1>{html.escape(title)}</h1>", *(_section(section) for section in sections[:1])]
    body += ["<h2>Figures</h2>", *drawn, *(_section(section) for section in sections[1:])]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(line)}</p>" for line in section.text]
    if section.rows:
        parts += ["<table><thead>", _row(section.columns, "th"), "</thead><tbody>"]
        parts += [_row(row, "td") for row in section.rows]
        parts.append("</tbody></table>")
    return "".join(parts)


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _bars(graph: Any, key: str, runs: Named) -> Any:
    """One group of bars a data set, one bar a run, with its interval."""
    figure = graph.Figure(layout={"title": FIGURES[key].title, "barmode": "group", "yaxis_title": FIGURES[key].unit})
    for name, result in runs:
        found = {dataset: each.estimates[key] for dataset, each in result.datasets.items() if key in each.estimates}
        if not found:
            continue
        means = [estimate.mean for estimate in found.values()]
        figure.add_bar(
            name=name,
            x=list(found),
            y=means,
            error_y={
                "type": "data",
                "array": [0 if e.high is None else e.high - e.mean for e in found.values()],
                "arrayminus": [0 if e.low is None else e.mean - e.low for e in found.values()],
            },
            hovertemplate=f"%{{x}}: %{{y:.4g}} {FIGURES[key].unit}<br>{html.escape(FIGURES[key].meaning)}",
        )
    return figure


def _latencies(graph: Any, runs: Named) -> Any:
    """Each request's latency, repeat by repeat: the whole distribution and not its percentiles alone."""
    figure = graph.Figure(layout={"title": "Latency of each request", "boxmode": "group", "yaxis_title": "s"})
    for name, result in runs:
        places, values = [], []
        for dataset, each in result.datasets.items():
            for repeat in each.repeats:
                for request in repeat.requests:
                    if request.latency_s is not None:
                        places.append(dataset)
                        values.append(request.latency_s)
        if values:
            figure.add_box(name=name, x=places, y=values)
    return figure


def _positions(graph: Any, runs: Named) -> Any:
    """How often draft token 1, 2, ... was accepted, given that all before it were."""
    figure = graph.Figure(
        layout={
            "title": "Acceptance by position (given that all before were accepted)",
            "xaxis_title": "draft token",
            "yaxis_title": "share",
        }
    )
    for name, result in runs:
        shares = acceptance_by_position(result)
        if shares:
            figure.add_scatter(name=name, x=list(range(1, len(shares) + 1)), y=shares, mode="lines+markers")
    return figure


def acceptance_by_position(result: BenchResult) -> list[float]:
    """P(draft token i accepted | all before it were), over all data sets and repeats, up to where it is known."""
    totals = [repeat.totals for dataset in result.datasets.values() for repeat in dataset.repeats]
    longest = max((len(each.reached_at) for each in totals), default=0)
    shares = []
    for position in range(longest):
        reached = sum(each.reached_at[position] for each in totals if position < len(each.reached_at))
        if not reached:
            break
        accepted = sum(each.accepted_at[position] for each in totals if position < len(each.accepted_at))
        shares.append(accepted / reached)
    return shares
