"""A trace: the records of a run, its file, and how it shows itself."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

from ssd_lab.common.late import late
from ssd_lab.trace.records import TraceRecords
from ssd_lab.trace.storage import read_into, write


@dataclass
class Trace(TraceRecords):
    """A whole run: what was asked, every round, every prefill, and the requests' outcome.

    preparations: when graphs were captured and kernels compiled, in rounds, prefills or between them; names begin with
    `capture` or `compile`, lanes are `target` and `draft`.
    """

    def save(self, path: str | PathLike[str]) -> None:
        """Write as JSON lines (compressed if named `.gz`); raises TraceFormatError on a value JSON cannot hold."""
        write(self, path)

    def to_html(self, path: str | PathLike[str], *, title: str | None = None) -> None:
        """Write the views of this trace as one HTML file that needs no network and no kernel.

        OSError if the place cannot be written.
        """
        late("write_html")(self, path, title=title)

    def _repr_html_(self) -> str:
        return str(late("summary_html")(late("view_data")(self)))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return dict(late("cell_bundle")({"run": self}, self._repr_html_()))


def load_trace(path: str | PathLike[str]) -> Trace:
    """Read a trace that `Trace.save` wrote.

    Raises TraceFormatError if the file is missing, no trace, damaged (with the line's number) or of a newer version.
    """
    return read_into(Trace, path)
