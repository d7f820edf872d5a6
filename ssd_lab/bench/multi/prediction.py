"""What the simulator says of the rounds that were measured, from times of one device and of the links alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssd_lab.bench.multi.reading import BatchOfRounds, Measured
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import HardwareProfile, TableTime, simulate
from ssd_lab.trace import load_trace

ALLOWED_ERROR = 0.10


@dataclass(frozen=True)
class Predicted:
    """Tokens per second of the same rounds. why_not: where nothing can be said."""

    predicted: float | None = None
    measured: float | None = None
    why_not: str = ""

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured."""
        return self.predicted / self.measured - 1 if self.predicted and self.measured else None


def predict(measured: Measured, one: BatchOfRounds) -> Predicted:
    """The recorded rounds on the clock of a profile made for their placement."""
    try:
        profile = profile_for(measured, one)
        tokens = seconds = told = 0.0
        for place in one.data["traces"]:
            found = simulate(load_trace(measured.folder / place), profile, miss_cost="full")
            tokens, seconds = tokens + found.num_tokens, seconds + found.time_s
            told += found.num_tokens / (found.recorded_tokens_per_second or float("inf"))
    except ConfigError as error:
        return Predicted(why_not=str(error))
    return Predicted(tokens / seconds, tokens / told if told else None)


def profile_for(measured: Measured, one: BatchOfRounds) -> HardwareProfile:
    """Of one device, with verification shared by the ranks (a part of its time, and two sums a layer), the link there
    and back, and what a host adds to a round of one device. Raises ConfigError if something of that was not measured.
    """
    cell, place = one.cell, one.cell.place
    phases = measured.phases(cell.pair)
    if phases is None:
        raise ConfigError("no phases of one device")
    profile = HardwareProfile.model_validate(phases["profile"])
    changed: dict[str, Any] = {
        "measured_rounds": (),
        "overhead_s": _host_s(profile),
        "draft_gpus": max(1, place.drafts),
    }
    if cell.strategy in ("autoregressive", "sync_chain") and place.ranks == 1:
        changed |= {"measured_rounds": profile.measured_rounds, "overhead_s": profile.overhead_s}
    if place.drafts:
        link_s = measured.link_s(one.batch)
        if link_s is None:
            raise ConfigError("the link was not measured")
        changed |= {"link_s": link_s, "draft_device": "devices of its own"}
    if place.ranks > 1:
        shape = cell.pair.shape
        sums = measured.sums(place.ranks, shape.hidden_size)
        if sums is None:
            raise ConfigError(f"no sums over {place.ranks} ranks were measured")
        for name in ("verify_s", "autoregressive_step_s"):
            whole: TableTime = getattr(profile, name)
            shared = {
                rows: seconds / place.ranks + 2 * shape.num_layers * sums.at(rows)
                for rows, seconds in zip(whole.rows, whole.seconds, strict=True)
            }
            changed[name] = TableTime.of(shared)
    return profile.model_copy(update=changed)


def _host_s(profile: HardwareProfile) -> float:
    """What an autoregressive round of one device takes beyond its phases."""
    beyond = [one.seconds - one.priced_s for one in profile.measured_rounds if one.drafting == "none"]
    return max(0.0, min(beyond, default=profile.overhead_s))
