"""The plan of a report: the list of its cells, made from the devices and the models alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from ssd_lab.bench.config import BUNDLED
from ssd_lab.bench.multi.cell import PIECES, Cell
from ssd_lab.bench.multi.extent import Extent
from ssd_lab.bench.multi.machine import Machine
from ssd_lab.bench.multi.memory_cell import MemoryCell
from ssd_lab.bench.multi.messages_cell import TRANSPORTS as LINKS
from ssd_lab.bench.multi.messages_cell import MessagesCell
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.bench.multi.phases_cell import PhasesCell
from ssd_lab.bench.multi.placements import Place, all_share, checked_places, place, with_drafts
from ssd_lab.bench.multi.rounds_cell import RoundsCell
from ssd_lab.bench.multi.slice_cell import SliceCell
from ssd_lab.bench.multi.sums_cell import TRANSPORTS as SUMS
from ssd_lab.bench.multi.sums_cell import SumsCell
from ssd_lab.bench.multi.texts import TextCell
from ssd_lab.check.checking import DEFAULT_STRATEGIES
from ssd_lab.profile.measure import Sizes
from ssd_lab.strategies.registry import listed

Settings = tuple[str, dict[str, Any]]
AUTOREGRESSIVE: Settings = ("autoregressive", {})
HEADS: tuple[Settings, ...] = (("eagle3", {"mode": "sync"}), ("eagle3", {"mode": "async"}))
ASYNCHRONOUS: tuple[Settings, ...] = (("async_tree", {"fallback": "jit"}), ("async_tree", {"fallback": "fast"}))
FEW: tuple[Settings, ...] = (AUTOREGRESSIVE, ("sync_chain", {}), ASYNCHRONOUS[0])
ALL: tuple[Settings, ...] = (AUTOREGRESSIVE, *listed(DEFAULT_STRATEGIES), ("async_tree", {"fallback": "auto"}))
SAMPLED: tuple[Settings, ...] = (("sync_chain", {}), *ASYNCHRONOUS, ("sync_tree", {}))
PROFILED_ROWS = (1, 2, 4, 8, 16, 24, 32, 64)
ROUNDS_TO_COMPARE = 7  # draft tokens of the verification that is set beside a step


def make_plan(machine: Machine, pairs: Sequence[Pair], extent: Extent) -> list[Cell]:
    """Every cell, in the order in which they run: correctness first; of rounds the most wanted first."""
    cells: list[Cell] = [*_texts(machine, pairs, extent), *_links(machine, pairs, extent)]
    for pair in pairs:
        ranks = machine.ranks_for(pair.weight_bytes())
        if ranks is None:
            continue  # `too_large` says so
        cells += _phases(machine, pair, extent, ranks)
        cells += _rounds(machine, pair, extent, ranks)
    unique = list({cell.key: cell for cell in cells}.values())
    return sorted(unique, key=lambda cell: list(PIECES).index(cell.piece))


def too_large(machine: Machine, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs whose target these devices cannot hold."""
    return [pair for pair in pairs if machine.ranks_for(pair.weight_bytes()) is None]


def _engine(machine: Machine) -> dict[str, Any]:
    """Processes of a CPU take a thread each."""
    return {"threads": 1, "dtype": "float32"} if machine.on_cpu else {}


def _texts(machine: Machine, pairs: Sequence[Pair], extent: Extent) -> Iterator[TextCell]:
    """Of the first pair that one device holds, or the bundled one: first every strategy that drafts, then distributions
    of those whose draft tokens depend on where they are drafted. Of a placement that may be refused a few are enough.
    """
    pair = next((pair for pair in pairs if machine.ranks_for(pair.weight_bytes()) == 1), None) or Pair.read(BUNDLED)
    heads, places, engine = HEADS if pair.is_bundled else (), checked_places(machine), _engine(machine)
    for where in places:
        for name, fields in FEW if where.may_be_refused else (*ALL, *heads):
            yield TextCell(pair, where, name, fields, False, extent, engine)
    for where in places:
        for name, fields in () if where.may_be_refused else (*SAMPLED, *heads[1:]):
            yield TextCell(pair, where, name, fields, True, extent, engine)


def _links(machine: Machine, pairs: Sequence[Pair], extent: Extent) -> Iterator[Cell]:
    first, *_, last = machine.devices
    for transport, (kind, _) in LINKS.items():
        if kind == "stream" and machine.on_cpu:
            continue
        yield MessagesCell(transport, first, first if kind == "inline" else last, extent.trips)
    hidden = tuple(sorted({pair.shape.hidden_size for pair in pairs}))
    ranks = 2
    while ranks <= machine.count:
        for transport in SUMS["cpu" if machine.on_cpu else "cuda"]:
            yield SumsCell(machine.devices[:ranks], transport, hidden, extent.sum_rows, extent.trips)
        ranks *= 2
    for number, device in enumerate({machine.devices[0]: None} if machine.on_cpu else machine.devices):
        beside = None if machine.on_cpu else machine.devices[(number + 1) % machine.count]
        yield MemoryCell(device, number, beside, extent.repeats)


def _phases(machine: Machine, pair: Pair, extent: Extent, ranks: int) -> Iterator[Cell]:
    """The pair on one device, and one rank's part for each number of ranks that runs: of a target that no device holds
    only the parts.
    """
    k, device, dtype = extent.centre, machine.devices[0], _engine(machine).get("dtype", "auto")
    sizes = Sizes(
        k=k,
        fan_out=(extent.usual_fan_out,) * (k + 1),
        batches=tuple(batch for batch in extent.round_batches if batch <= 16),
        contexts=(extent.context,),
        rows=PROFILED_ROWS if not machine.on_cpu else (1, 2, 4, 8),
        repeats=extent.repeats,
    )
    yield PhasesCell(pair, device, sizes, dtype, ranks)
    for where in all_share(machine, 2 * ranks):
        yield SliceCell(pair, device, where.ranks, sizes, dtype)


def _rounds(machine: Machine, pair: Pair, extent: Extent, ranks: int) -> Iterator[RoundsCell]:
    """The fewest ranks with a draft beside, at all settings; then more drafts, more ranks, and all as ranks."""

    def cell(where: Place, settings: Settings) -> RoundsCell:
        name, fields = settings
        return RoundsCell(
            pair, where, name, fields, extent.round_batches, extent.round_prompts, extent.round_tokens,
            engine=_engine(machine),
        )  # fmt: skip

    alone, beside = place(machine, ranks), with_drafts(machine, ranks)
    usual: Settings = ("async_tree", {"k": extent.centre, "f": extent.usual_fan_out, "fallback": "jit"})
    chain: Settings = ("sync_chain", {"k": extent.centre})
    main = beside[0] if beside else alone
    yield from (cell(alone, settings) for settings in (AUTOREGRESSIVE, chain))
    yield cell(main, usual)
    wider = all_share(machine, max(2, ranks))
    for where in wider:
        yield from (
            cell(where, one) for one in (AUTOREGRESSIVE, ("sync_chain", {"k": ROUNDS_TO_COMPARE}), chain, usual)
        )
    others = [where for more in wider for where in with_drafts(machine, more.ranks)]
    two_on_one = [place(machine, ranks, 2)] if machine.count == ranks + 1 else []
    yield from (cell(where, usual) for where in [*beside[1:], *two_on_one, *others])
    yield from (cell(alone, ("sync_chain", {"k": k})) for k in extent.lookaheads)
    yield from (cell(main, settings) for settings in asynchronous(extent))


def asynchronous(extent: Extent) -> list[Settings]:
    """Lookaheads, fan-outs and fallbacks: each around the usual one, or every combination."""
    usual = (extent.centre, extent.usual_fan_out, extent.fallbacks[0])
    axes = (extent.lookaheads, extent.fan_outs, extent.fallbacks)
    if extent.all_cells:
        chosen = list(product(*axes))
    else:
        chosen = [
            tuple(value if axis == number else usual[axis] for axis in range(len(axes)))  # type: ignore[misc]
            for number, values in enumerate(axes)
            for value in values
        ]
    return [("async_tree", {"k": k, "f": f, "fallback": fallback}) for k, f, fallback in dict.fromkeys(chosen)]
