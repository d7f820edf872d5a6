"""What the simulator says of the rounds that were measured, from times of one device and of the links alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssd_lab.bench.multi.messages_cell import BY_STREAM, IN_MEMORY
from ssd_lab.bench.multi.placements import Place
from ssd_lab.bench.multi.reading import BatchOfRounds, Measured
from ssd_lab.errors import ConfigError
from ssd_lab.models.share import SUMS_A_LAYER
from ssd_lab.simulate import HardwareProfile, simulate
from ssd_lab.simulate.target_ranks import slice_of
from ssd_lab.trace import load_trace

ALLOWED_ERROR = 0.10
ASSUMED_STREAM_S = 38e-6  # there and back by the devices' clock, between two H200: docs/results/two-gpus.md


@dataclass(frozen=True)
class Predicted:
    """Tokens per second of the same rounds. why_not: where nothing can be said. notes: what was assumed."""

    predicted: float | None = None
    measured: float | None = None
    why_not: str = ""
    notes: tuple[str, ...] = ()

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
    return Predicted(tokens / seconds, tokens / told if told else None, notes=profile.caveats)


def profile_for(measured: Measured, one: BatchOfRounds) -> HardwareProfile:
    """Of one device, with verification by one rank's part and the sums, the link there and back, and what a host adds
    to a round of one device. Raises ConfigError if something of that was not measured.
    """
    cell, place = one.cell, one.cell.place
    phases = measured.phases(cell.pair)
    if phases is None:
        raise ConfigError("no phases of one device")
    profile = HardwareProfile.model_validate(phases["profile"])
    if place.ranks == 1 and (not place.drafts or cell.strategy in ("autoregressive", "sync_chain")):
        return profile
    if place.ranks > 1:
        profile = _over_ranks(measured, one, profile, is_whole=phases.get("ranks", 1) == 1)
    if cell.strategy == "async_tree" and profile.fallback_host_s is None:
        profile = _noted(profile, "not measured, none is counted: the host's part of rounds with misses")
    changed: dict[str, Any] = {"measured_rounds": (), "overhead_s": profile.host_s}
    if place.drafts:
        changed |= _beside(measured, place, one.batch, profile)
    return profile.model_copy(update=changed)


def _over_ranks(measured: Measured, one: BatchOfRounds, profile: HardwareProfile, *, is_whole: bool) -> HardwareProfile:
    """By the part of one rank, if it was measured; a profile that is not of the whole target holds one part itself.
    Raises ConfigError for another part that was not measured.
    """
    ranks, shape = one.cell.place.ranks, one.cell.pair.shape
    part = measured.rank_slice(one.cell.pair, ranks)
    if part is not None:
        profile = profile.model_copy(update={"rank_slices": (*profile.rank_slices, part)})
    if not is_whole and slice_of(profile.rank_slices, ranks) is None:
        raise ConfigError(f"the part of one of {ranks} ranks was not measured")
    sum_s = measured.sums(ranks, shape.hidden_size)
    return profile.with_target_ranks(ranks, sums=SUMS_A_LAYER * shape.num_layers, sum_s=sum_s)


def _beside(measured: Measured, place: Place, rows: int, profile: HardwareProfile) -> dict[str, Any]:
    """Drafts with devices of their own, and the way there: one on a GPU is a stream of the engine's process and
    prepares rounds, others are processes, which do not. Raises ConfigError if their link was not measured.
    """
    devices = place.num_draft_devices
    changed: dict[str, Any] = {
        "draft_device": "devices of its own",
        "draft_gpus": devices,
        "drafts_in_turn": -(-place.drafts // devices),
        "prepares": place.is_by_stream,
    }
    link_s = measured.link_s(BY_STREAM if place.is_by_stream else IN_MEMORY, rows)
    if link_s is None and place.is_by_stream:
        noted = _noted(profile, "assumed, not measured: the link takes 38 us there and back, as between two H200")
        return changed | {"link_s": ASSUMED_STREAM_S, "caveats": noted.caveats}
    if link_s is None:
        raise ConfigError("the link was not measured")
    return changed | {"link_s": link_s}


def _noted(profile: HardwareProfile, said: str) -> HardwareProfile:
    return profile.model_copy(update={"caveats": (*profile.caveats, said)})
