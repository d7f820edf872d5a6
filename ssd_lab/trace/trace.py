"""A trace and its file: JSON lines, a header, an object for each request, prefill and round, and an end line with
their counts.

A new field with a default does not change the schema version (older readers leave it out); anything else does.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from ssd_lab.common.late import late
from ssd_lab.common.places import write_whole
from ssd_lab.errors import ConfigError, TraceFormatError
from ssd_lab.trace.records import (
    SCHEMA_VERSION,
    Activity,
    Position,
    RequestRecord,
    RoundRecord,
    SequenceRound,
    TreeRecord,
)
from ssd_lab.trace.rows import rows_of
from ssd_lab.trace.spans import overlap_s, union

_RECORD_TYPES = (Activity, Position, RequestRecord, RoundRecord, SequenceRound, TreeRecord)
_FIELDS: dict[type, frozenset[str]] = {cls: frozenset(f.name for f in dataclasses.fields(cls)) for cls in _RECORD_TYPES}
_Record = TypeVar("_Record")


@dataclass
class Trace:
    """A whole run: what was asked, every round, every prefill, and the requests' outcome.

    preparations: when graphs were captured and kernels compiled, in rounds, prefills or between them; names begin with
    `capture` or `compile`, lanes are `target` and `draft`.
    """

    meta: dict[str, Any]
    requests: list[RequestRecord] = field(default_factory=list)
    rounds: list[RoundRecord] = field(default_factory=list)
    prefills: list[Activity] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION
    preparations: list[Activity] = field(default_factory=list)

    @property
    def timed_rounds(self) -> list[RoundRecord]:
        """The rounds that tell how long rounds take: those in which nothing was prepared."""
        return [one for one in self.rounds if not one.preparation_s]

    def elapsed_s(self, start_s: float, end_s: float) -> float:
        """Seconds from one moment to a later one, those left out in which something was prepared."""
        prepared = union((each.start_s, each.end_s) for each in self.preparations)
        return end_s - start_s - overlap_s(prepared, [(start_s, end_s)])

    @property
    def metrics(self) -> Any:
        """The `Metrics` of these rounds, as `RunResult.metrics`."""
        return late("compute_metrics")(self)

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain dictionary for each sequence in each round (`ssd_lab.trace.rows`)."""
        return rows_of(self.meta, self.rounds)

    def to_pandas(self) -> Any:
        """`to_rows` as a pandas DataFrame. Raises ConfigError without pandas."""
        try:
            import pandas  # type: ignore[import-untyped]
        except ImportError as error:
            raise ConfigError("to_pandas needs pandas: pip install pandas, or take to_rows()") from error
        return pandas.DataFrame(self.to_rows())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON lines, compressed if `path` ends in `.gz`; an existing file is replaced once all is written.

        `meta` and `params` are stored as JSON: tuples come back as lists, keys as text.
        Raises TraceFormatError on NaN, infinity or an object JSON has no form for; OSError if the place cannot be
        written.
        """

        def write(unfinished: Path) -> None:
            with _open_text(unfinished, "wt", compressed=Path(path).suffix == ".gz") as file:
                for name, line in _lines(self):
                    file.write(_json(name, line) + "\n")

        write_whole(path, write)

    def to_html(self, path: str | os.PathLike[str], *, title: str | None = None) -> None:
        """Write the views of this trace as one HTML file that needs no network and no kernel.

        OSError if the place cannot be written.
        """
        late("write_html")(self, path, title=title)

    def _repr_html_(self) -> str:
        return str(late("summary_html")(late("view_data")(self)))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return dict(late("cell_bundle")({"run": self}, self._repr_html_()))


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace that `Trace.save` wrote.

    Raises TraceFormatError if the file is missing, no trace, damaged (with the line's number) or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise TraceFormatError(f"no trace at {path}: the file does not exist; Trace.save(path) writes one")
    number = 1
    try:
        with _open_text(path, "rt", compressed=path.suffix == ".gz") as file:
            trace = _of_header(path, file.readline())
            counts = None
            for text in file:
                number += 1
                if counts is not None:
                    raise ValueError("it follows the end line")
                counts = _read_line(trace, json.loads(text))
    except TraceFormatError:
        raise
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TraceFormatError(
            f"{path} cannot be read after line {number}: {error}; was it cut short or renamed?"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TraceFormatError(f"{path}, line {number} is damaged: {error}; save the trace again") from error
    if counts != _counts(trace):
        raise TraceFormatError(
            f"{path} was cut short: {_counts(trace)} read, its end line says {counts}; save the trace again"
        )
    return trace


def _lines(trace: Trace) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "meta", {"kind": "trace", "schema_version": SCHEMA_VERSION, "meta": trace.meta, **_preparations(trace)}
    for request in trace.requests:
        yield f"request {request.request_id}", {"kind": "request", **vars(request)}
    for prefill in trace.prefills:
        yield "a prefill", {"kind": "prefill", **vars(prefill)}
    for round_record in trace.rounds:
        yield f"round {round_record.index}", {"kind": "round", **vars(round_record)}
    yield "end", {"kind": "end", **_counts(trace)}


def _json(name: str, line: dict[str, Any]) -> str:
    try:
        return json.dumps(line, default=_plain, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise TraceFormatError(f"cannot save the trace: {name} holds what JSON cannot: {error}") from error


def _preparations(trace: Trace) -> dict[str, Any]:
    """A further key of the header, which older readers do not look for."""
    return {"preparations": trace.preparations} if trace.preparations else {}


def _read_line(trace: Trace, data: dict[str, Any]) -> dict[str, int] | None:
    """Append one record to `trace`; the end line's counts are returned instead."""
    kind = data.pop("kind")
    if kind == "round":
        data["sequences"] = [_sequence(s) for s in data["sequences"]]
        data["activities"] = [_build(Activity, a) for a in data["activities"]]
        trace.rounds.append(_build(RoundRecord, data))
    elif kind == "request":
        trace.requests.append(_build(RequestRecord, data))
    elif kind == "prefill":
        trace.prefills.append(_build(Activity, data))
    elif kind == "end":
        return data
    else:
        raise ValueError(f"unknown kind {kind!r}; known: request, prefill, round, end")
    return None


def _sequence(data: dict[str, Any]) -> SequenceRound:
    if data.get("tree") is not None:
        data["tree"] = _build(TreeRecord, _with_positions(data["tree"]))
    return _build(SequenceRound, _with_positions(data))


def _with_positions(data: dict[str, Any]) -> dict[str, Any]:
    if data.get("alternatives") is not None:
        data["alternatives"] = [_build(Position, place) for place in data["alternatives"]]
    return data


def _build(cls: type[_Record], data: dict[str, Any]) -> _Record:
    fields = _FIELDS[cls]
    if data.keys() - fields:  # a field added later, with a default: not ours to know
        data = {name: value for name, value in data.items() if name in fields}
    return cls(**data)


def _of_header(path: Path, text: str) -> Trace:
    try:
        header = json.loads(text)
        version, meta = header["schema_version"], header["meta"]
        preparations = [_build(Activity, each) for each in header.get("preparations", [])]
        is_trace = header["kind"] == "trace" and isinstance(version, int) and isinstance(meta, dict)
    except (KeyError, TypeError, ValueError):
        is_trace = False
    if not is_trace:
        raise TraceFormatError(f"{path} is not a trace: its first line is not the header that Trace.save writes")
    if version > SCHEMA_VERSION:
        raise TraceFormatError(
            f"{path} has schema version {version}, this ssd_lab reads up to {SCHEMA_VERSION}: install a newer ssd_lab"
        )
    return Trace(meta=meta, preparations=preparations)


def _counts(trace: Trace) -> dict[str, int]:
    return {"requests": len(trace.requests), "prefills": len(trace.prefills), "rounds": len(trace.rounds)}


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, _RECORD_TYPES):
        return vars(value)
    raise TypeError(f"{value!r} of type {type(value).__name__}")


def _open_text(path: Path, mode: str, *, compressed: bool) -> IO[str]:
    if compressed:
        # level 1: a trace is written while someone waits, and repeats itself enough for a low level
        return cast(IO[str], gzip.open(path, mode, compresslevel=1, encoding="utf-8", newline="\n"))
    return cast(IO[str], open(path, mode, encoding="utf-8", newline="\n"))
