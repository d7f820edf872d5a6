"""The figures that are wanted of several GPUs, beside what was measured: passed, missed, or not run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ssd_lab.bench.multi.machine import Machine
from ssd_lab.bench.multi.memory_cell import MemoryCell
from ssd_lab.bench.multi.messages_cell import BY_STREAM, IN_MEMORY
from ssd_lab.bench.multi.pairs import Pair
from ssd_lab.bench.multi.prediction import ALLOWED_ERROR, Predicted
from ssd_lab.bench.multi.reading import STEP, TREE, BatchOfRounds, Measured
from ssd_lab.bench.multi.texts import TextCell

Verdict = Literal["passed", "missed", "not run", "reported", "on CPUs"]
OVER_SYNCHRONOUS = {"llama-8b": (3, 4), "qwen3-32b": (6,)}  # lookaheads at which 1.4 is wanted
STEP_SHARES = {2: 0.62, 4: 0.38}  # of a shared step over one device's, by ranks
PUBLISHED = {"autoregressive": 54.7, "sync_chain": 161.8, "async_tree": 255.8}  # 70B on 4 + 1B on 1, four sets, greedy
WANTED_70B = {"autoregressive": 66.0, "async_tree": 300.0}


@dataclass(frozen=True)
class Figure:
    """One row. wanted, measured: as they are shown."""

    text: str
    wanted: str
    measured: str
    verdict: Verdict


@dataclass(frozen=True)
class Wanted:
    """Judges what was measured; on CPUs nothing that is a matter of speed."""

    machine: Machine
    pairs: tuple[Pair, ...]
    measured: Measured

    def figures(self, predictions: list[tuple[BatchOfRounds, Predicted]]) -> Iterator[Figure]:
        """All of them."""
        yield self._texts(sampled=False)
        yield self._texts(sampled=True)
        link_s = self.measured.link_s(IN_MEMORY if self.machine.on_cpu else BY_STREAM, 1)
        yield self._most("the link there and back, 1 row, us", self._us(link_s), 10.0, "{:.1f}")
        for pair in self.pairs:
            yield from self._of_pair(pair)
        yield self._simulator(predictions)

    def _texts(self, *, sampled: bool) -> Figure:
        cells = [cell for cell in self.measured.of(TextCell) if cell.sampled is sampled]
        done = [cell for cell in cells if self.measured.status(cell) == "done"]
        wrong = [cell for cell in done if not (self.measured.result(cell) or {})["same"]]
        refused = [cell for cell in cells if cell.place.may_be_refused and self.measured.status(cell) == "refused"]
        text = "strategies and placements whose text at temperature 0 differs from autoregressive text"
        if sampled:
            text = "strategies and placements of which `check` at temperature 1 rejects a law"
        told = f"{len(wrong)} of {len(done)}" + (f"; {len(refused)} refused in words" if refused else "")
        left = len(cells) - len(done) - len(refused) - sum(self._stands_for_more(cell, refused) for cell in cells)
        told += f"; {left} not run or failed" if left else ""
        if not done or (left and not wrong):
            return Figure(text, "0", told, "not run")
        return Figure(text, "0", told, "missed" if wrong else "passed")

    def _stands_for_more(self, cell: TextCell, refused: list[TextCell]) -> bool:
        """Was it left out because its placement was refused for another strategy?"""
        return self.measured.status(cell) == "not run" and any(cell.place == other.place for other in refused)

    def _of_pair(self, pair: Pair) -> Iterator[Figure]:
        ranks = self.machine.ranks_for(pair.weight_bytes())
        if ranks is None:
            return
        for batch, most in ((1, 1.05), (16, 1.10)):
            text = f"{pair.name}: asynchronous round on hits over max(verify, draft tree), batch {batch}"
            over = self._over_longest(pair, ranks, batch)
            yield self._reported(text, over, "{:.2f}") if pair.is_bundled else self._most(text, over, most)
        for k in self._both_lookaheads(pair, ranks):
            text = f"{pair.name}, k = {k}: asynchronous over synchronous tokens/s, batch 1"
            over = _ratio(self._async(pair, ranks, 1, k), self._sync(pair, ranks, 1, k))
            wanted = any(k in lookaheads and pair.is_like(name) for name, lookaheads in OVER_SYNCHRONOUS.items())
            yield self._least(text, over, 1.4) if wanted else self._reported(text, over, "{:.2f}")
        best = _ratio(self._best("async_tree", pair, ranks, 1), self._best("sync_chain", pair, ranks, 0))
        yield self._reported(f"{pair.name}: the same at the best k of each, batch 1 (published: 1.49)", best, "{:.2f}")
        over = _ratio(self._best("async_tree", pair, ranks, 1), self._plain(pair, ranks))
        yield self._reported(
            f"{pair.name}: asynchronous over autoregressive, batch 1 (published: 2.29)", over, "{:.2f}"
        )
        for many, share in STEP_SHARES.items() if ranks == 1 else ():
            if many <= self.machine.count:
                step = _over(self._step_s(pair, many), self._step_s(pair, 1))
                text = f"{pair.name}: step of {many} ranks over one device's"
                is_wanted = pair.is_like("llama-8b")
                yield self._most(text, step, share) if is_wanted else self._reported(text, step, "{:.2f}")
        yield from self._shared(pair, max(2, ranks))
        two = _ratio(self._drafts(pair, ranks, 2), self._drafts(pair, ranks, 1))
        text = f"{pair.name}: two drafts over one, tokens/s at the largest batch up to 16"
        is_wanted = self.machine.count >= 4 and not pair.is_bundled
        yield self._least(text, two, 1.15) if is_wanted else self._reported(text, two, "{:.2f}")
        yield from self._published(pair)

    def _shared(self, pair: Pair, ranks: int) -> Iterator[Figure]:
        """Of a target over several devices."""
        if ranks > self.machine.count:
            return
        one = self.measured.rounds(pair, STEP, 1, ranks=ranks)
        verify = self.measured.rounds(pair, "sync_chain", 1, ranks=ranks, k=7)
        over = _over(None if verify is None else verify.verify_s, None if one is None else one.verify_s)
        text = f"{pair.name}: verification of 8 rows over the step, {ranks} ranks"
        yield self._reported(text, over, "{:.2f}") if pair.is_bundled else self._most(text, over, 1.04)
        bandwidth = self._bandwidth()
        step_s = None if one is None else one.verify_s
        share = one.rank_reads_bytes / step_s / bandwidth if one and step_s and bandwidth else None
        text = f"{pair.name}: step of {ranks} ranks, of their memories' bandwidth"
        yield self._least(text, share, 0.80) if pair.is_like("llama-70b") else self._reported(text, share, "{:.2f}")

    def _published(self, pair: Pair) -> Iterator[Figure]:
        if not pair.is_like("llama-70b") or self.machine.count < 4:
            return
        for name, published in PUBLISHED.items():
            drafts = 1 if name == "async_tree" else 0
            found = [one for one in self._all(name, pair, 4, drafts) if one.batch == 1 and one.rate]
            rate = max((one.rate or 0.0 for one in found), default=None)
            text = f"{pair.name}: {name} on 4 devices{' and a draft' * drafts}, tokens/s (published: {published})"
            wanted = WANTED_70B.get(name)
            yield self._reported(text, rate, "{:.1f}") if wanted is None else self._least(text, rate, wanted, "{:.1f}")

    def _simulator(self, predictions: list[tuple[BatchOfRounds, Predicted]]) -> Figure:
        errors = [abs(found.error) for _, found in predictions if found.error is not None]
        text = f"simulated rates within {ALLOWED_ERROR:.0%} of the measured ones"
        if not errors:
            return Figure(text, "all", "-", "not run")
        near = sum(error <= ALLOWED_ERROR for error in errors)
        told = f"{near} of {len(errors)}, worst {max(errors):.0%}"
        return Figure(text, "all", told, self._verdict(near == len(errors)))

    def _over_longest(self, pair: Pair, ranks: int, batch: int) -> float | None:
        found = next((one for one in self._all("async_tree", pair, ranks, 1) if one.batch == batch), None)
        return None if found is None else over_longest(self.measured, found)

    def _both_lookaheads(self, pair: Pair, ranks: int) -> list[int]:
        both = {one.cell.fields["k"] for one in self._all("async_tree", pair, ranks, 1)}
        return sorted(both & {one.cell.fields["k"] for one in self._all("sync_chain", pair, ranks, 0)})

    def _all(self, strategy: str, pair: Pair, ranks: int, drafts: int) -> list[BatchOfRounds]:
        return [
            one
            for one in self.measured.batches()
            if (one.cell.strategy, one.cell.pair) == (strategy, pair)
            and (one.cell.place.ranks, one.cell.place.drafts) == (ranks, drafts)
        ]

    def _async(self, pair: Pair, ranks: int, batch: int, k: int) -> BatchOfRounds | None:
        """With the usual fan-out and fallback where there are several of that k."""
        found = [one for one in self._all("async_tree", pair, ranks, 1) if one.batch == batch]
        same = [one for one in found if one.cell.fields["k"] == k]
        usual = [one for one in same if one.cell.fields.get("f") == 3]
        return next(iter(usual or same), None)

    def _sync(self, pair: Pair, ranks: int, batch: int, k: int) -> BatchOfRounds | None:
        return self.measured.rounds(pair, "sync_chain", batch, ranks=ranks, k=k)

    def _plain(self, pair: Pair, ranks: int) -> BatchOfRounds | None:
        return self.measured.rounds(pair, STEP, 1, ranks=ranks)

    def _best(self, strategy: str, pair: Pair, ranks: int, drafts: int) -> BatchOfRounds | None:
        found = [one for one in self._all(strategy, pair, ranks, drafts) if one.batch == 1 and one.rate]
        return max(found, key=lambda one: one.rate or 0.0, default=None)

    def _drafts(self, pair: Pair, ranks: int, drafts: int) -> BatchOfRounds | None:
        """The largest batch up to 16 of the first run with so many."""
        found = [one for one in self._all("async_tree", pair, ranks, drafts) if one.batch <= 16]
        same = [one for one in found if one.cell == found[0].cell]
        return max(same, key=lambda one: one.batch, default=None)

    def _step_s(self, pair: Pair, ranks: int) -> float | None:
        one = self.measured.rounds(pair, STEP, 1, ranks=ranks)
        return None if one is None else one.verify_s

    def _bandwidth(self) -> float | None:
        found = [result for cell in self.measured.of(MemoryCell) if (result := self.measured.result(cell))]
        return min((float(result["bytes_per_second"]) for result in found), default=None)

    def _us(self, seconds: float | None) -> float | None:
        return None if seconds is None else 1e6 * seconds

    def _most(self, text: str, value: float | None, most: float, pattern: str = "{:.2f}") -> Figure:
        return self._judged(
            text, f"at most {pattern.format(most)}", value, value is not None and value <= most, pattern
        )

    def _least(self, text: str, value: float | None, least: float, pattern: str = "{:.2f}") -> Figure:
        return self._judged(
            text, f"at least {pattern.format(least)}", value, value is not None and value >= least, pattern
        )

    def _judged(self, text: str, wanted: str, value: float | None, holds: bool, pattern: str) -> Figure:
        if value is None:
            return Figure(text, wanted, "-", "not run")
        return Figure(text, wanted, pattern.format(value), self._verdict(holds))

    def _reported(self, text: str, value: float | None, pattern: str) -> Figure:
        if value is None:
            return Figure(text, "reported", "-", "not run")
        return Figure(text, "reported", pattern.format(value), "reported")

    def _verdict(self, holds: bool) -> Verdict:
        if self.machine.on_cpu:
            return "on CPUs"
        return "passed" if holds else "missed"


def longest_s(measured: Measured, one: BatchOfRounds) -> float | None:
    """max(verify, draft tree) of an asynchronous round: verification as the synchronous rounds of the same ranks and k
    took it (where there are some: in asynchronous ones it may hold waiting), the tree as this run's drafts took it.
    """
    place, k = one.cell.place, one.cell.fields.get("k")
    alike = measured.rounds(one.cell.pair, "sync_chain", one.batch, ranks=place.ranks, k=k)
    verify_s = one.verify_s if alike is None else alike.verify_s
    tree_s = one.span_s(f": {TREE}")
    return max(verify_s, tree_s) if verify_s and tree_s else None


def over_longest(measured: Measured, one: BatchOfRounds) -> float | None:
    """The usual hit round over max(verify, draft tree)."""
    longest = longest_s(measured, one)
    return one.settled_s / longest if one.settled_s and longest else None


def _ratio(one: BatchOfRounds | None, other: BatchOfRounds | None) -> float | None:
    return _over(None if one is None else one.rate, None if other is None else other.rate)


def _over(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None
