"""What was measured: single points, each with the bytes it must move, so that a roofline can be drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssd_lab.profile.prompts import PromptMeasurement
    from ssd_lab.profile.starts import Start

AUTOREGRESSIVE, VERIFY, CHAIN_STEP, TREE_STEP, EXTENSION, ATTENTION = (
    "autoregressive step",
    "verify",
    "draft chain step",
    "draft tree step",
    "draft tree extension",
    "attention",
)


def rank_of(ranks: int) -> str:
    """What points of one rank's part of the target are told by."""
    return f"target, one of {ranks} ranks"


@dataclass(frozen=True)
class Point:
    """One phase at one size. rows: of one forward, all sequences together. bytes: weights and K/V, each read once.

    model: `target`, `draft` or `rank_of(...)`.
    """

    what: str
    model: str
    batch: int
    context: int
    rows: int
    seconds: float
    bytes: int

    def share_of(self, bandwidth: float) -> float:
        """Bytes per second over the bandwidth (bytes per second)."""
        return self.bytes / self.seconds / bandwidth


@dataclass(frozen=True)
class SlicePoints:
    """Forwards of one rank's part of the target, alone. sums: over the ranks, of which a forward would make so many."""

    ranks: int
    sums: int
    points: list[Point]


@dataclass(frozen=True)
class RoundPoint:
    """Rounds of a whole run: seconds of the median round, and of the phases alone that it cannot do without (None: not
    timed alone). host_s: in which no graph ran on the device (None: there are no graphs). mean_s: of the mean round;
    priced_s: of the same rounds by the phases alone, as the simulator prices them; step_s: of a head's step (None: not
    asked for). fallback_host_s, turnaround_s: medians of what `Answering` says (None: there were no such rounds).
    """

    strategy: str
    batch: int
    context: int
    round_s: float
    phases_s: float | None
    tokens_per_second: float
    tokens_per_round: float
    host_s: float | None = None
    mean_s: float | None = None
    priced_s: float | None = None
    step_s: float | None = None
    fallback_host_s: float | None = None
    turnaround_s: float | None = None

    @property
    def overhead_s(self) -> float | None:
        """What the round takes beyond its phases."""
        return None if self.phases_s is None else self.round_s - self.phases_s


@dataclass(frozen=True)
class Measurement:
    """A profile run. bandwidth: bytes per second of a large sum, in the same run. models: role -> source. device: what
    both ran on. unusable: points that a busy machine left no sense in, which are left out. slices: parts of the target.
    prompts, starts: if they were asked for.
    """

    bandwidth: float
    models: dict[str, str]
    k: int
    fan_out: tuple[int, ...]
    points: list[Point]
    rounds: list[RoundPoint] = field(default_factory=list)
    surroundings: dict[str, Any] = field(default_factory=dict)
    device: str | None = None
    unusable: list[str] = field(default_factory=list)
    slices: list[SlicePoints] = field(default_factory=list)
    prompts: PromptMeasurement | None = None
    starts: list[Start] = field(default_factory=list)

    def find(self, what: str, model: str, *, batch: int, context: int, rows: int | None = None) -> Point | None:
        """The point of that kind and size."""
        return next(
            (
                point
                for point in self.points
                if (point.what, point.model, point.batch, point.context) == (what, model, batch, context)
                and rows in (None, point.rows)
            ),
            None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)
