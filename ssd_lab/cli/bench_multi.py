"""`ssd-lab bench multi-gpu`: the whole report of a machine with several GPUs, in pieces that go on where they ended."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssd_lab.cli import options
from ssd_lab.cli.interrupts import INTERRUPTED
from ssd_lab.cli.output import FOUND_DIFFERENCE, console, print_json, say_interrupted, show_progress
from ssd_lab.errors import ConfigError

if TYPE_CHECKING:
    from ssd_lab.bench.multi.cell import Cell
    from ssd_lab.bench.multi.process import Outcome

DEFAULT_OUT = Path("results") / "multi-gpu"


def command(
    devices: Annotated[
        str | None,
        typer.Option("--devices", help="cuda:0,cuda:1,... or cpu,cpu,...: each cpu is a process. None: all GPUs here."),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pair", help="bundled, or TARGET,DRAFT: llama-8b,llama-1b (inflated), folders. Repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder of the report and of what is done.")] = DEFAULT_OUT,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="This call ends by itself after so many; the next one goes on.")
    ] = 9.0,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Cells whose name holds this; `--plan` lists names. Repeatable.")
    ] = None,
    small: Annotated[
        bool | None, typer.Option("--small/--usual", help="Little of everything. None: on processes of a CPU.")
    ] = None,
    crossed: Annotated[
        bool, typer.Option("--crossed", help="Every k with every f and fallback, not each around the usual one.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and how long it may take.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells again that failed.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what is done.")] = False,
    json_: options.Json = False,
) -> None:
    """Run what the folder lacks, and write report.md; the exit code is 1 if a text or a law differs."""
    from ssd_lab.bench.multi.extent import Extent
    from ssd_lab.bench.multi.machine import Machine
    from ssd_lab.bench.multi.pairs import Pair
    from ssd_lab.bench.multi.plan import make_plan, too_large
    from ssd_lab.bench.multi.running import missing

    machine = Machine.of(None if devices is None else devices.split(","))
    chosen = [Pair.read(text) for text in dict.fromkeys(pairs or ["bundled"])]
    small = machine.on_cpu if small is None else small
    extent = Extent.small(crossed=crossed) if small else Extent.usual(machine.count, crossed=crossed)
    cells = make_plan(machine, chosen, extent)
    wanted = [cell for cell in cells if not only or any(part in cell.key for part in only)]
    if not wanted:
        raise ConfigError(f"--only {' '.join(only or ())} is in the name of no cell: --plan without it lists them")
    notes = [f"{pair.name} does not fit on these devices: left out" for pair in too_large(machine, chosen)]
    settings = {"devices": list(machine.devices), "pairs": [p.name for p in chosen], "small": small, "crossed": crossed}
    if plan:
        _show_plan(wanted, notes if machine.present else [*notes, _planned_only(devices)], as_json=json_)
        return
    if not machine.present:
        raise ConfigError(f"--devices {devices} names GPUs that are not here: with --plan it is planned only")

    from ssd_lab.bench.multi.store import Store

    store = Store(out, settings, fresh=fresh)
    with store.locked():
        if missing(wanted, store, retry=retry):
            _measure(wanted, store, minutes, retry)
        _report(machine, chosen, cells, store, notes, as_json=json_)


def _measure(cells: list[Cell], store: Any, minutes: float, retry: bool) -> None:
    """Run them, and say what comes of each."""
    from datetime import UTC, datetime

    from ssd_lab.bench.multi.running import run_cells
    from ssd_lab.display.environment import describe

    described = describe()
    time = described.pop("time", datetime.now(UTC).isoformat(timespec="seconds"))
    store.begin_call({"command": shlex.join(["ssd-lab", *sys.argv[1:]]), "time": time, "environment": described})
    said = console(stderr=True)

    def begins(cell: Cell) -> None:
        if show_progress():
            said.print(f"... {cell.key}", markup=False, soft_wrap=True)

    def ended(cell: Cell, outcome: Outcome) -> None:
        line = f"{outcome.status} in {outcome.seconds:.0f} s: {cell.key}"
        said.print(line + (f": {outcome.error}" if outcome.error else ""), markup=False, soft_wrap=True)

    try:
        ran = run_cells(cells, store, minutes=minutes, retry=retry, on_start=begins, on_cell=ended)
    except KeyboardInterrupt:
        say_interrupted(f"interrupted, {len(store.results)} cells are kept in {store.folder}", goes_on=True)
        raise typer.Exit(INTERRUPTED) from None
    if ran.left:
        told = f"{ran.left} cells are left: the same command goes on with them"
        said.print(told, markup=False, soft_wrap=True)


def _report(machine: Any, pairs: list[Any], cells: list[Cell], store: Any, notes: list[str], *, as_json: bool) -> None:
    """Write it, and show the figures."""
    from ssd_lab.bench.multi.reading import Measured
    from ssd_lab.bench.multi.report import REPORT, write_report
    from ssd_lab.bench.multi.running import missing

    measured = Measured(cells, store.results, store.folder)
    figures = write_report(machine, pairs, measured, store)
    differ = any(not line["result"].get("same", True) for line in store.results.values() if line["status"] == "done")
    if as_json:
        failed = {key: line["error"] for key, line in store.results.items() if line["status"] == "failed"}
        left = [cell.key for cell in missing(cells, store)]
        shown = [vars(figure) for figure in figures]
        print_json({"folder": str(store.folder), "figures": shown, "failed": failed, "left": left, "notes": notes})
    else:
        for figure in figures:
            told = f"{figure.verdict}: {figure.text}: {figure.measured} (wanted: {figure.wanted})"
            console().print(told, markup=False, soft_wrap=True)
        for note in notes:
            console(stderr=True).print(note, markup=False, soft_wrap=True)
        console().print(str(store.folder / REPORT), soft_wrap=True, markup=False)
    if differ:
        raise typer.Exit(FOUND_DIFFERENCE)


def _show_plan(cells: list[Cell], notes: list[str], *, as_json: bool) -> None:
    seconds = sum(cell.estimate_s for cell in cells)
    if as_json:
        listed = [{"cell": cell.key, "estimate_s": cell.estimate_s} for cell in cells]
        print_json({"cells": listed, "minutes": seconds / 60, "notes": notes})
        return
    for cell in cells:
        console().print(f"{cell.estimate_s:5.0f} s  {cell.key}", markup=False, soft_wrap=True)
    pieces: dict[str, float] = {}
    for cell in cells:
        pieces[cell.piece] = pieces.get(cell.piece, 0.0) + cell.estimate_s / 60
    parts = ", ".join(f"{piece} {each:.0f}" for piece, each in pieces.items())
    told = f"{len(cells)} cells, thought to take {seconds / 60:.0f} minutes ({parts}); known better once some have run"
    for line in (told, *notes):
        console().print(line, markup=False, soft_wrap=True)


def _planned_only(devices: str | None) -> str:
    return f"{devices} are not here: 80 GB each were taken for the plan"
