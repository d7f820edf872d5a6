"""Loss curves as a small SVG: `python -m studies.bundled_models.curves LOG.jsonl KEY [KEY ...] --out FILE.svg`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ssd_lab.display.charts import Line, line_chart


def curve_svg(records: Sequence[dict[str, float]], keys: Sequence[str], *, title: str) -> str:
    """Each key against the millions of tokens seen."""
    lines = [
        Line(key, [(r["tokens"] / 1e6, r[key]) for r in records if key in r and "tokens" in r], marked=False)
        for key in keys
    ]
    return line_chart(lines, title=title, x_title="million tokens", y_title="", from_zero=True)


def main() -> None:
    """Draw the named keys of a log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("keys", nargs="+")
    parser.add_argument("--title", default="loss")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    records = [json.loads(line) for line in arguments.log.read_text().splitlines()]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(curve_svg(records, arguments.keys, title=arguments.title))


if __name__ == "__main__":
    main()
