"""Draw the samples that come with the package, from sets at hand: `python -m studies.samples --from FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ssd_lab.display.tables import Table
from studies.samples.drawing import write_samples


def main(arguments: Sequence[str] | None = None) -> str:
    """Write them; returns what is to be shown. The same sets give the same bytes."""
    parser = argparse.ArgumentParser(prog="python -m studies.samples", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder to write to")
    options = parser.parse_args(arguments)
    written = write_samples(options.source, options.out)
    rows = [(each.dataset, str(each.rows), str(each.file), each.source) for each in written]
    return Table(("name", "rows", "file", "from"), rows).to_text()


if __name__ == "__main__":
    sys.stdout.write(main() + "\n")
