"""What was measured so far, as the report's tables and figures ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd_lab.bench.multi.breakdown import HITS, OTHERS
from ssd_lab.bench.multi.cell import Cell
from ssd_lab.bench.multi.messages_cell import MessagesCell
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.bench.multi.phases_cell import PhasesCell
from ssd_lab.bench.multi.rounds_cell import RoundsCell
from ssd_lab.bench.multi.slice_cell import SliceCell
from ssd_lab.bench.multi.sums_cell import AS_THE_ENGINE, SumsCell
from ssd_lab.simulate import RankSlice
from ssd_lab.simulate.time_models import TableTime

STEP, TREE, CHAIN, VERIFY = "autoregressive", "tree", "draft: draft", "target: verify"


@dataclass(frozen=True)
class BatchOfRounds:
    """One batch size of a cell of rounds."""

    cell: RoundsCell
    data: dict[str, Any]
    rank_reads_bytes: int

    @property
    def batch(self) -> int:
        """Sequences together."""
        return int(self.data["batch"])

    def figure(self, name: str) -> float | None:
        """The mean of one of `bench.figures`."""
        found = self.data["figures"].get(name)
        return None if found is None else float(found["mean"])

    @property
    def rate(self) -> float | None:
        """Decode tokens per second of the whole batch."""
        return self.figure("decode_tokens_per_second")

    def round_s(self, kind: str) -> float | None:
        """Median length of rounds of a kind, None if there were none."""
        found = self.data["rounds"].get(kind)
        return None if found is None else float(found["round_s"])

    @property
    def settled_s(self) -> float | None:
        """Of hit rounds where there are lookups, of all rounds where there are none."""
        return self.round_s(HITS if self.round_s(HITS) is not None else OTHERS)

    def span_s(self, name: str, kind: str | None = None) -> float | None:
        """Median of a span that ends so, the longest of several lanes; of rounds of a kind (None: the settled ones)."""
        kind = kind or (HITS if HITS in self.data["rounds"] else OTHERS)
        spans = self.data["rounds"].get(kind, {}).get("spans_s", {})
        return max((seconds for own, seconds in spans.items() if own.endswith(name)), default=None)

    @property
    def verify_s(self) -> float | None:
        """Median of a verification. Where a round is launched ahead its span begins with the launch, before its draft:
        then it is what the draft leaves of the round.
        """
        span_s, drafting_s, round_s = self.span_s(VERIFY), self.span_s(CHAIN, OTHERS), self.round_s(OTHERS)
        if span_s is None or drafting_s is None or round_s is None:
            return span_s
        return min(span_s, round_s - drafting_s)


class Measured:
    """The cells of a plan and what is known of them."""

    def __init__(self, cells: Sequence[Cell], results: dict[str, dict[str, Any]], folder: Path) -> None:
        self.cells, self.results, self.folder = cells, results, folder

    def of(self, kind: type[Cell]) -> list[Any]:
        """The plan's cells of a kind."""
        return [cell for cell in self.cells if isinstance(cell, kind)]

    def status(self, cell: Cell) -> str:
        """done, refused, failed or not run."""
        line = self.results.get(cell.key)
        return "not run" if line is None else str(line["status"])

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """Of a cell that is done."""
        line = self.results.get(cell.key)
        found: dict[str, Any] | None = None if line is None else line.get("result")
        return found

    def batches(self) -> Iterator[BatchOfRounds]:
        """Every batch of every cell of rounds that is done."""
        for cell in self.of(RoundsCell):
            result = self.result(cell)
            for data in () if result is None else result["batches"]:
                yield BatchOfRounds(cell, data, result["rank_reads_bytes"])  # type: ignore[index]

    def rounds(
        self, pair: Pair, strategy: str, batch: int, *, ranks: int, drafts: int = 0, **fields: Any
    ) -> BatchOfRounds | None:
        """The first of that kind; fields: those that it must have."""
        for one in self.batches():
            where = one.cell.place
            same = (one.cell.pair, one.cell.strategy, one.batch) == (pair, strategy, batch)
            has = all(one.cell.fields.get(name) == value for name, value in fields.items())
            if same and has and (where.ranks, where.drafts) == (ranks, drafts):
                return one
        return None

    def phases(self, pair: Pair) -> dict[str, Any] | None:
        """Of one device."""
        return next((self.result(cell) for cell in self.of(PhasesCell) if cell.pair == pair), None)

    def rank_slice(self, pair: Pair, ranks: int) -> RankSlice | None:
        """One rank's part of the target, alone."""
        for cell in self.of(SliceCell):
            result = self.result(cell)
            if (cell.pair, cell.ranks) == (pair, ranks) and result is not None:
                return RankSlice.model_validate(result["slice"])
        return None

    def link_s(self, transport: str, rows: int) -> float | None:
        """There and back over a link, greedy, of so many rows or the next measured number."""
        for cell in self.of(MessagesCell):
            result = self.result(cell)
            if cell.transport == transport and result is not None:
                name = "1 row, greedy" if rows == 1 else "16 rows, greedy"
                return 1e-6 * float(result["payloads"][name]["median_us"])
        return None

    def sums(self, ranks: int, hidden: int) -> TableTime | None:
        """Seconds of a sum over so many ranks by rows, in graphs where there are some."""
        for cell in self.of(SumsCell):
            result = self.result(cell)
            if cell.transport == AS_THE_ENGINE and len(cell.devices) == ranks and result is not None:
                sizes = [one for one in result["sizes"] if one["hidden"] == hidden]
                if sizes:
                    return TableTime.of({one["rows"]: 1e-6 * one.get("in_graph_us", one["us"]) for one in sizes})
        return None
