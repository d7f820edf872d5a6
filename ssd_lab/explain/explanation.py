"""What `explain` hands back: numbers, and sentences plain enough to read without a book beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ssd_lab.display.tables import Column, Columns, Row
from ssd_lab.explain.terms import Term

if TYPE_CHECKING:
    from rich.console import RenderableType

_NEGLIGIBLE = 0.01  # of the speed; a gain below this is no cause
_CAUSE = Column("cause", lambda row: str(row["name"]), number=False)
_SPEED = Column("tokens/s without it", lambda row: f"{row['tokens_per_second']:.1f}")
_GAIN = Column("gain", lambda row: f"+{row['gain']:.1f}")
_IDEAL = Column("without it", lambda row: str(row["ideal"]), number=False)
_NARROW, _WIDE = Columns((_CAUSE, _SPEED, _GAIN)), Columns((_CAUSE, _SPEED, _GAIN, _IDEAL))


@dataclass(frozen=True)
class RunExplanation:
    """One run. Speeds in tokens per second of the whole batch; measured_tokens_per_second is None where the rounds were
    priced on a machine they did not run on, baseline (autoregressive) None where nothing tells it.

    verify_over_step: verification of a usual round over one autoregressive step. terms: the largest gain first.
    speedup_by_batch: simulated from this run's rates and times, at its own batch size as measured. timed_to: the
    largest batch whose verifications were timed; beyond it nothing is claimed. speedup_interval: 95 %, from how rounds
    vary.
    """

    strategy: str
    batch: int
    measured_tokens_per_second: float | None
    predicted_tokens_per_second: float
    baseline_tokens_per_second: float | None
    tokens_per_round: float
    acceptance_rate: float | None
    hit_rate: float | None
    verify_over_step: float | None
    terms: list[Term]
    speedup_by_batch: dict[int, float]
    caveats: list[str] = field(default_factory=list)
    timed_to: int | None = None
    speedup_interval: tuple[float, float] | None = None

    @property
    def tokens_per_second(self) -> float:
        """As measured, else as predicted."""
        return self.measured_tokens_per_second or self.predicted_tokens_per_second

    @property
    def speedup(self) -> float | None:
        """Over autoregressive decoding; None if that is not known."""
        return None if not self.baseline_tokens_per_second else self.tokens_per_second / self.baseline_tokens_per_second

    @property
    def pays(self) -> bool | None:
        """Is it faster than autoregressive decoding?"""
        return None if self.speedup is None else self.speedup > 1

    @property
    def undecided(self) -> bool:
        """Does the interval of the speed-up hold 1?"""
        return self.speedup_interval is not None and self.speedup_interval[0] < 1 < self.speedup_interval[1]

    @property
    def blame(self) -> Term | None:
        """The cause whose absence would gain most, acceptance left out unless nothing else gains: a draft that is
        always right is no plan. None if nothing gains 1 %.
        """
        worth = [term for term in self.terms if term.gain > _NEGLIGIBLE * self.predicted_tokens_per_second]
        return next((term for term in worth if term.name != "acceptance"), worth[0] if worth else None)

    @property
    def told(self) -> dict[int, float]:
        """The speed-ups by batch, as far as verification was timed."""
        most = max(self.speedup_by_batch, default=0) if self.timed_to is None else self.timed_to
        return {batch: gain for batch, gain in sorted(self.speedup_by_batch.items()) if batch <= most}

    @property
    def pays_at(self) -> list[int]:
        """Batch sizes at which it should be faster, of those that were timed."""
        return [batch for batch, gain in self.told.items() if gain > 1]

    @property
    def off_at(self) -> list[int]:
        """Batch sizes at which it should not be, of those that were timed."""
        return [batch for batch, gain in self.told.items() if gain <= 1]

    @property
    def off_from_batch(self) -> int | None:
        """The batch size from which on it should be off; None if it pays at the largest that was timed."""
        return off_from(self.told)

    def sentences(self) -> list[str]:
        """The explanation in words."""
        return [self._speed(), self._round(), self._verdict(), *self._batches()]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        derived = {
            "speedup": self.speedup,
            "pays": self.pays,
            "blame": None if self.blame is None else self.blame.name,
            "off_from_batch": self.off_from_batch,
            "pays_at": self.pays_at,
            "off_at": self.off_at,
            "sentences": self.sentences(),
        }
        return {**asdict(self), **derived}

    def rows(self) -> list[Row]:
        """One plain dictionary a cause."""
        return [asdict(term) for term in self.terms]

    def _speed(self) -> str:
        predicted = f"{self.predicted_tokens_per_second:.1f} tokens/s"
        if self.measured_tokens_per_second is None:
            said = f"These rounds would give {predicted}"
        else:
            together = "one sequence at a time" if self.batch == 1 else f"{self.batch} sequences together"
            ran = f"{self.measured_tokens_per_second:.1f} tokens/s, {together}"
            said = f"It ran at {ran}; from its parts one would expect {predicted}"
        if self.speedup is None:
            return f"{said}."
        faster, interval = "faster" if self.pays else "not faster", ""
        if self.speedup_interval is not None:
            interval = " ({:.2f} to {:.2f})".format(*self.speedup_interval)
            if self.undecided:
                faster = "neither faster nor slower beyond noise"
        return (
            f"{said}. That is {self.speedup:.2f}{interval} times autoregressive decoding "
            f"({self.baseline_tokens_per_second:.1f} tokens/s): {faster}."
        )

    def _round(self) -> str:
        parts = [f"A round gives {self.tokens_per_round:.2f} tokens"]
        if self.acceptance_rate is not None:
            parts.append(f"the target keeps {self.acceptance_rate:.0%} of the draft tokens it looks at")
        if self.hit_rate is not None:
            parts.append(f"the draft had prepared for what happened in {self.hit_rate:.0%} of the rounds")
        if self.verify_over_step is not None:
            parts.append(f"checking them takes {self.verify_over_step:.1f} times as long as one plain step")
        return "; ".join(parts) + "."

    def _verdict(self) -> str:
        blame = self.blame
        if blame is None:
            return "No single cause holds it back by more than 1 %."
        start = "What holds it back most" if self.pays is not False or self.undecided else "Why it does not pay"
        aside = "" if blame is self.terms[0] else ", acceptance aside"
        return (
            f"{start}{aside}: {blame.name}. If {blame.ideal}, it would give {blame.tokens_per_second:.1f} tokens/s "
            f"(+{blame.gain:.1f}). What can be done: {blame.advice}."
        )

    def _batches(self) -> list[str]:
        if not self.speedup_by_batch:
            return []
        open_ = [self.batch] if self.undecided and self.batch in self.told else []
        pays_at, off_at = ([one for one in found if one not in open_] for found in (self.pays_at, self.off_at))
        parts = []
        if pays_at:
            parts.append(f"It should pay at batch {spoken(pays_at, list(self.told))}")
        if off_at:
            parts.append(f"{'be off' if parts else 'It should be off'} at batch {spoken(off_at, list(self.told))}")
        if open_:
            parts.append(f"{'at' if parts else 'At'} batch {self.batch} neither is faster beyond noise")
        beyond = [batch for batch in self.speedup_by_batch if batch not in self.told]
        if not parts:
            return []
        untimed = f"; {min(beyond)} and more are beyond what was timed" if beyond else ""
        return [f"{', and '.join(parts)} (simulated, at {self.batch} as measured{untimed})."]


@dataclass(frozen=True, repr=False)
class Explanation:
    """The speculative runs of a comparison, by name."""

    runs: dict[str, RunExplanation]

    def __getitem__(self, name: str) -> RunExplanation:
        return self.runs[name]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {name: run.as_dict() for name, run in self.runs.items()}

    def __str__(self) -> str:
        parts = []
        for name, run in self.runs.items():
            gains = ", ".join(f"{term.name} +{term.gain:.1f}" for term in run.terms)
            lines = [name, *run.sentences(), f"Tokens/s gained if a cause were gone: {gains}.", *_notes(run)]
            parts.append("\n".join(lines))
        return "\n\n".join(parts)

    __repr__ = __str__

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        shown: list[RenderableType] = []
        for name, run in self.runs.items():
            shown += [Text(name, style="bold"), *map(Text, run.sentences())]
            shown += [_NARROW.table(run.rows(), notes=_notes(run)).to_rich(), Text("")]
        return Group(*shown)

    def _repr_html_(self) -> str:
        parts = []
        for name, run in self.runs.items():
            parts.append(_WIDE.table([], lead="\n".join([name, *run.sentences()])).to_html())
            causes = _WIDE.table(run.rows(), notes=_notes(run)).to_html()
            parts.append(f"<details><summary>Cause by cause</summary>{causes}</details>")
        return "".join(parts)


def _notes(run: RunExplanation) -> list[str]:
    overlap = "gains do not add up: each is the same rounds with that one cause gone"
    return [overlap, *dict.fromkeys(run.caveats)]


def off_from(speedups: Mapping[int, float]) -> int | None:
    """The smallest batch size from which on speculation is no faster; None if it is faster at the largest one tried."""
    off = None
    for batch in sorted(speedups, reverse=True):
        if speedups[batch] > 1:
            return off
        off = batch
    return off


def spoken(batches: Sequence[int], known: Sequence[int]) -> str:
    """Batch sizes in words, neighbours in the known ones as ranges: `1 to 4, 16`."""
    ranges: list[list[int]] = []
    for batch in batches:
        place = known.index(batch)
        if ranges and place and ranges[-1][-1] == known[place - 1]:
            ranges[-1].append(batch)
        else:
            ranges.append([batch])
    return ", ".join(f"{own[0]} to {own[-1]}" if len(own) > 1 else str(own[0]) for own in ranges)
