"""The report: sections as Markdown with figures beside it, and all numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ssd_lab import __version__
from ssd_lab.bench.reproduce import coefficient, fallback, headline, miss_rate, schedules, temperature
from ssd_lab.bench.reproduce.recording import Recordings, record
from ssd_lab.bench.reproduce.section import Claim, Section, Table
from ssd_lab.errors import ConfigError

SECTIONS: dict[str, Callable[[Recordings], Section]] = {
    module.KEY: module.section for module in (headline, miss_rate, schedules, temperature, coefficient, fallback)
}
NEED_NO_RECORDING = {headline.KEY}
_VERDICTS = {True: "holds", False: "does not hold", None: "cannot be told"}


def reproduce(
    folder: Path, *, sections: Sequence[str] = (), recordings: Recordings | None = None, **recording: Any
) -> list[Section]:
    """Record what the sections need, write report.md, report.json, rounds and figures into the folder; returns them.

    sections: their keys, none for all. recording: arguments of `record`. Raises ConfigError for an unknown key or a
    folder that cannot be written.
    """
    unknown = [key for key in sections if key not in SECTIONS]
    if unknown:
        raise ConfigError(f"section {unknown[0]!r} is not known; there are {', '.join(SECTIONS)}")
    chosen = list(sections) or list(SECTIONS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {folder}: {error}") from error
    if recordings is None and set(chosen) - NEED_NO_RECORDING:
        recordings = record(**{"budgets": schedules.RUN_BUDGETS if schedules.KEY in chosen else (), **recording})
    found = [SECTIONS[key](recordings) for key in chosen]  # type: ignore[arg-type]
    _write(folder, found, recordings)
    return found


def _write(folder: Path, sections: Sequence[Section], recordings: Recordings | None) -> None:
    settings = {} if recordings is None else recordings.settings
    document = {
        "ssd_lab": __version__,
        "recorded": settings,
        "sections": {
            s.key: {"title": s.title, "claims": [vars(claim) for claim in s.claims], **s.numbers} for s in sections
        },
    }
    try:
        for section in sections:
            for name, svg in section.figures.items():
                (folder / name).write_text(svg, encoding="utf-8")
        for temperature_, trace in ({} if recordings is None else recordings.traces).items():
            trace.save(folder / f"rounds-{temperature_:g}.jsonl.gz")
        (folder / "report.md").write_text(markdown(sections, settings), encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {folder}: {error}") from error


def markdown(sections: Sequence[Section], settings: dict[str, Any]) -> str:
    """The report as text; figures are files beside it."""
    lines = ["# The paper's figures (arXiv 2603.03251) beside ours", ""]
    if settings:
        lines += [
            "Rounds were recorded with " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ". "
            "Anything called simulated ran on a virtual clock and was not measured.",
            "",
        ]
    lines += ["Exactness is tested by `ssd-lab check`.", ""]
    for section in sections:
        lines += [f"## {section.title}", "", f"**Paper.** {section.paper}", "", f"**Here.** {section.ours}", ""]
        for table in section.tables:
            lines += [*_table(table), ""]
        lines += [f"![{name}]({name})" for name in section.figures]
        lines += ["", *(_claim(claim) for claim in section.claims), ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    rows = [table.columns, ("---",) * len(table.columns), *table.rows]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _claim(claim: Claim) -> str:
    detail = f" ({claim.detail})" if claim.detail else ""
    return f"- **{_VERDICTS[claim.holds]}**: {claim.text}{detail}."
