"""The report of a folder: report.md with wanted figures beside measured ones, and everything they were made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ssd_lab.bench.multi.breakdown import HITS, MISSES
from ssd_lab.bench.multi.cell import PIECES
from ssd_lab.bench.multi.machine import Machine
from ssd_lab.bench.multi.memory_cell import MemoryCell
from ssd_lab.bench.multi.messages_cell import PAYLOADS, MessagesCell
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.bench.multi.prediction import Predicted, predict
from ssd_lab.bench.multi.reading import BatchOfRounds, Measured
from ssd_lab.bench.multi.store import Store
from ssd_lab.bench.multi.sums_cell import SumsCell
from ssd_lab.bench.multi.texts import TextCell
from ssd_lab.bench.multi.wanted import Figure, Wanted, longest_s, over_longest
from ssd_lab.bench.report import ReportSection, markdown
from ssd_lab.common.places import write_text
from ssd_lab.display import environment
from ssd_lab.display.tables import Side, Table

REPORT = "report.md"
ROUNDS = (
    "Rounds are medians over settled rounds of a full batch; rates are decode tokens/s of the whole batch. "
    "max(verify, tree): verification as synchronous rounds of the same ranks and k took it, the tree as this run's "
    "drafts took it."
)
PREDICTED = (
    "Predicted: the recorded rounds on the simulator's clock, with times of one device: verification (as one rank's "
    "part and two sums a layer), the link, and the host's part of autoregressive rounds and of rounds with misses."
)
TEXTS = "Texts are compared with autoregressive texts of the same placement at batch 1."
ROUND_COLUMNS = (
    "placement", "run", "batch", "round, ms", "on misses, ms", "max(verify, tree), ms", "over it", "hits",
    "tokens/round", "tokens/s", "a device", "predicted", "error",
)  # fmt: skip
_NUMBERS: list[Side] = ["right"] * (len(ROUND_COLUMNS) - 2)
ROUND_SIDES: tuple[Side, ...] = ("left", "left", *_NUMBERS)


def write_report(machine: Machine, pairs: Sequence[Pair], measured: Measured, store: Store) -> list[Figure]:
    """Write report.md into the folder; returns the figures that are wanted. OSError if it cannot be written."""
    predictions = [(one, predict(measured, one)) for one in measured.batches()]
    figures = list(Wanted(machine, tuple(pairs), measured).figures(predictions))
    sections = [
        _figures(figures, measured),
        *_texts(measured),
        *_links(measured),
        *_rounds(pairs, measured, predictions),
        *_breakdowns(pairs, measured),
        *_not_done(measured),
        *_surroundings(store),
        ReportSection("How it was measured", (ROUNDS, PREDICTED, TEXTS)),
    ]
    title = f"Several devices: {', '.join(machine.devices)}"
    write_text(store.folder / REPORT, markdown(title, sections))
    return figures


def _figures(figures: Sequence[Figure], measured: Measured) -> ReportSection:
    done = sum(measured.status(cell) in ("done", "refused") for cell in measured.cells)
    text = f"{done} of {len(measured.cells)} cells of the plan are done."
    return ReportSection("Figures", (text,), figures_table(figures))


def figures_table(figures: Sequence[Figure]) -> Table:
    """Wanted beside measured."""
    rows = [(one.text, one.wanted, one.measured, one.verdict) for one in figures]
    return Table(("figure", "wanted", "measured", "verdict"), rows, sides=("left", "right", "right", "left"))


def _texts(measured: Measured) -> Iterator[ReportSection]:
    cells: list[TextCell] = measured.of(TextCell)
    for sampled, title in ((False, "Texts at temperature 0: tokens that differ"), (True, "Laws at temperature 1")):
        own = [cell for cell in cells if cell.sampled is sampled]
        places = list(dict.fromkeys(cell.place.text for cell in own))
        found = {(cell.label, cell.place.text): _of_text(measured, cell) for cell in own}
        rows = [
            (label, *(found.get((label, text), "-") for text in places))
            for label in dict.fromkeys(cell.label for cell in own)
        ]
        if rows:
            yield ReportSection(title, (), Table(("strategy", *places), rows))


def _of_text(measured: Measured, cell: TextCell) -> str:
    result = measured.result(cell)
    if result is None:
        return measured.status(cell)
    if cell.sampled:
        tested = [path for path in result["paths"] if path["p_values"]]
        return f"{sum(path['rejected'] for path in tested)} of {len(tested)} rejected"
    greedy = result["greedy"]
    differ, tokens = (sum(one[name] for one in greedy) for name in ("num_differing_tokens", "num_tokens"))
    lost = "; its draft was lost" if any(one["degraded"] for one in greedy) else ""
    return f"{differ} of {tokens:,}{lost}"


def _links(measured: Measured) -> Iterator[ReportSection]:
    rows = []
    for cell in measured.of(MessagesCell):
        result = measured.result(cell)
        told = {} if result is None else result["payloads"]
        shown = [
            f"{told[name]['median_us']:.1f} ({told[name]['tenth_us']:.1f})" if told else measured.status(cell)
            for name in PAYLOADS
        ]
        rows.append((f"{cell.transport}, {cell.target} to {cell.draft}", *shown))
    if rows:
        lead = (
            "Microseconds from the outcome until the draft tokens are on the target's device: median (fastest tenth)."
        )
        yield ReportSection("A round's two messages, there and back", (lead,), Table(("link", *PAYLOADS), rows))
    sums = [
        (str(result["ranks"]), cell.transport, str(one["hidden"]), str(one["rows"]), f"{one['us']:.1f}",
         f"{one['in_graph_us']:.1f}" if "in_graph_us" in one else "-")
        for cell in measured.of(SumsCell) if (result := measured.result(cell)) for one in result["sizes"]
    ]  # fmt: skip
    if sums:
        columns = ("ranks", "transport", "hidden", "rows", "us", "us in a graph")
        yield ReportSection("Sums over the ranks", (), Table(columns, sums))
    memory = [
        (cell.device, f"{result['bytes_per_second'] / 1e12:.3f}", _us(result.get("host_sees_us")),
         ", ".join(f"{one['bytes']:,}: {one['us']:.1f}" for one in result.get("copies", ())) or "-")
        for cell in measured.of(MemoryCell) if (result := measured.result(cell))
    ]  # fmt: skip
    if memory:
        columns_ = ("device", "reads, TB/s", "a graph until the host sees it, us", "copies to the next, bytes: us")
        yield ReportSection("Devices", (), Table(columns_, memory))


def _rounds(
    pairs: Sequence[Pair], measured: Measured, predictions: Sequence[tuple[BatchOfRounds, Predicted]]
) -> Iterator[ReportSection]:
    for pair in pairs:
        own = [(one, found) for one, found in predictions if one.cell.pair == pair]
        rows = [_round(measured, one, found) for one, found in own]
        notes = tuple(dict.fromkeys(f"No prediction: {found.why_not}." for _, found in own if found.why_not))
        notes += tuple(dict.fromkeys(_as_noted(one, note) for one, found in own for note in found.notes))
        if rows:
            yield ReportSection(f"Rounds of {pair.name}", notes, Table(ROUND_COLUMNS, rows, sides=ROUND_SIDES))


def _as_noted(one: BatchOfRounds, note: str) -> str:
    return f"Predicted for {one.cell.place.text}: {note}."


def _round(measured: Measured, one: BatchOfRounds, found: Predicted) -> tuple[str, ...]:
    longest, over = (longest_s(measured, one), over_longest(measured, one)) if one.span_s(": tree") else (None, None)
    rate, devices = one.rate, one.cell.place.num_devices
    return (
        one.cell.place.text, one.cell.label, str(one.batch), _ms(one.settled_s), _ms(one.round_s(MISSES)), _ms(longest),
        _as("{:.2f}", over), _as("{:.0%}", one.figure("cache_hit_rate")), _as("{:.2f}", one.figure("tokens_per_round")),
        _as("{:.1f}", rate), _as("{:.1f}", None if rate is None else rate / devices), _as("{:.1f}", found.predicted),
        _as("{:+.0%}", found.error),
    )  # fmt: skip


def _breakdowns(pairs: Sequence[Pair], measured: Measured) -> Iterator[ReportSection]:
    """Of each pair's first asynchronous run at the smallest and the largest batch."""
    for pair in pairs:
        found = [one for one in measured.batches() if one.cell.pair == pair and one.cell.strategy == "async_tree"]
        first = [one for one in found if one.cell == found[0].cell]
        for one in first if len(first) < 3 else (first[0], first[-1]):
            kinds = {kind: one.data["rounds"][kind] for kind in (HITS, MISSES) if kind in one.data["rounds"]}
            names = list(dict.fromkeys(name for told in kinds.values() for name in told["spans_s"]))
            rows = [(name, *(_ms(told["spans_s"].get(name)) for told in kinds.values())) for name in names]
            rows += [("host", *(_ms(told["host_s"]) for told in kinds.values()))]
            rows += [("the round", *(_ms(told["round_s"]) for told in kinds.values()))]
            if kinds:
                text = f"{one.cell.place.text}, {one.cell.label}; median milliseconds of each span."
                columns = ("", *(f"{kind} ({told['rounds']})" for kind, told in kinds.items()))
                yield ReportSection(f"A round of {pair.name}, batch {one.batch}", (text,), Table(columns, rows))


def _not_done(measured: Measured) -> Iterator[ReportSection]:
    lines = [
        f"{measured.status(cell)}: {cell.key}: {measured.results[cell.key]['error']}"
        for cell in measured.cells
        if measured.status(cell) in ("failed", "refused")
    ]
    for piece, title in PIECES.items():
        own = [cell for cell in measured.cells if cell.piece == piece]
        left = [cell for cell in own if measured.status(cell) == "not run"]
        lines += [f"not run: {len(left)} of {len(own)} cells of {piece!r} ({title})"] if left else []
    if lines:
        yield ReportSection("Not done", tuple(lines))


def _surroundings(store: Store) -> Iterator[ReportSection]:
    lines: list[str] = []
    for call in store.calls:
        lines += [f"`{call['command']}`, {call['time']}", *environment.in_words(call["environment"])]
    if lines:
        yield ReportSection("Commands, hardware and versions", tuple(dict.fromkeys(lines)))


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.2f}"


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _as(pattern: str, value: Any) -> str:
    return "-" if value is None else pattern.format(value)
