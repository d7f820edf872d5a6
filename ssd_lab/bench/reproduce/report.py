"""The report: sections as Markdown with figures beside it, and all numbers as JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ssd_lab.bench.claim import SETTINGS
from ssd_lab.bench.reproduce import coefficient, eagle3, fallback, headline, miss_rate, schedules, temperature
from ssd_lab.bench.reproduce.recording import Recordings
from ssd_lab.bench.reproduce.section import Claim, PaperSection
from ssd_lab.common.places import write_text
from ssd_lab.display import environment
from ssd_lab.errors import ConfigError

SECTIONS: dict[str, Callable[[Recordings], PaperSection]] = {
    module.KEY: module.section
    for module in (headline, miss_rate, schedules, temperature, coefficient, fallback, eagle3)
}
RECORDED = "recorded"  # folder of what sections are made from, and of finished ones
_VERDICTS = {True: "holds", False: "does not hold", None: "cannot be told"}


def reproduce(
    folder: Path,
    *,
    sections: Sequence[str] = (),
    fresh: bool = False,
    on_section: Callable[[str], None] = lambda key: None,
    **recording: Any,
) -> list[PaperSection]:
    """Make sections, and write them with all that were made before into report.md, report.json and figures; returns
    them. What was recorded, and each finished section, is kept in the folder: a run that was cut off goes on there.

    sections: keys of those to make, whether they are there or not; none: all that are not there yet. fresh: forget
    what is there. on_section: told of each before it is made. recording: arguments of `Recordings`. Raises ConfigError
    for an unknown key, for a folder that cannot be written, and for one that holds what other settings gave.
    """
    unknown = [key for key in sections if key not in SECTIONS]
    if unknown:
        raise ConfigError(f"section {unknown[0]!r} is not known; there are {', '.join(SECTIONS)}")
    kept = folder / RECORDED
    if fresh and (kept / SETTINGS).exists():
        shutil.rmtree(kept)
    recordings = Recordings(folder=kept, **recording)
    found: dict[str, PaperSection] = {}
    for key, make in SECTIONS.items():
        path = kept / f"section-{key}.json"
        if path.exists() and key not in sections:
            found[key] = PaperSection.from_dict(json.loads(path.read_text(encoding="utf-8")))
        elif key in sections or not sections:
            on_section(key)
            found[key] = make(recordings)
            write_text(path, json.dumps(found[key].as_dict()))
            _write(folder, list(found.values()), recordings.settings)
    _write(folder, list(found.values()), recordings.settings)
    return list(found.values())


def _write(folder: Path, sections: Sequence[PaperSection], settings: dict[str, Any]) -> None:
    made = environment.describe()
    document = {
        "environment": made,
        "recorded": settings,
        "sections": {
            s.key: {"title": s.title, "claims": [vars(claim) for claim in s.claims], **s.numbers} for s in sections
        },
    }
    try:
        for section in sections:
            for name, svg in section.figures.items():
                (folder / name).write_text(svg, encoding="utf-8")
        (folder / "report.md").write_text(markdown(sections, settings, made), encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {folder}: {error}") from error


def markdown(sections: Sequence[PaperSection], settings: dict[str, Any], made: dict[str, Any]) -> str:
    """The report as text; figures are files beside it. made: where, as `environment.describe` tells it."""
    lines = ["# The paper's figures (arXiv 2603.03251) beside ours", ""]
    lines += [
        "Made by `ssd-lab reproduce`.",
        "",
        *(f"- {line}" for line in (*environment.in_words(made), made["time"])),
        "",
        "Rounds were recorded with " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ". "
        "Anything called simulated ran on a virtual clock and was not measured.",
        "",
        "Exactness is tested by `ssd-lab check`, the choice of a strategy by `ssd-lab tune --full-grid`.",
        "",
    ]
    for section in sections:
        lines += [f"## {section.title}", "", f"**Paper.** {section.paper}", "", f"**Here.** {section.ours}", ""]
        for table in section.tables:
            lines += [table.to_markdown(), ""]
        lines += [f"![{name}]({name})" for name in section.figures]
        lines += ["", *(_claim(claim) for claim in section.claims), ""]
    return "\n".join(lines)


def _claim(claim: Claim) -> str:
    detail = f" ({claim.detail})" if claim.detail else ""
    return f"- **{_VERDICTS[claim.holds]}**: {claim.text}{detail}."
