"""What one forward costs on a machine: profiles as data, so that rounds recorded anywhere can be timed there."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ssd_lab.common.places import write_text
from ssd_lab.errors import ConfigError
from ssd_lab.simulate.target_ranks import ASSUMED_SUM_S, RankSlice, divided, slice_of, with_sums
from ssd_lab.simulate.time_models import FrozenRecord, Seconds, TimeModel

Drafting = Literal["none", "chain", "async", "head", "head async"]


class MeasuredRound(FrozenRecord):
    """Rounds of a whole run on that machine, and what the phases alone say of the same rounds."""

    drafting: Drafting = Field(description="none: autoregressive; chain, head: drafted first; async: meanwhile")
    sequences: int = Field(ge=1, description="decoded together")
    seconds: float = Field(gt=0, allow_inf_nan=False, description="of a round, as measured")
    priced_s: float = Field(gt=0, allow_inf_nan=False, description="of the same rounds, by the phases of the profile")


class HardwareProfile(FrozenRecord):
    """Times in seconds of the phases of a round on one machine, for one pair of models.

    Where target and draft shared one device and their phases were timed alone, an asynchronous round takes them in
    turn. Where whole rounds were measured, priced rounds are as much longer or shorter as those were.
    """

    name: str = Field(description="how the profile is asked for and shown")
    source: str = Field(description="where the numbers come from")
    caveats: tuple[str, ...] = Field(
        (), description="what the numbers cannot be trusted for; repeated with every result"
    )
    target_device: str | None = Field(default=None, description="what the target ran on; absent: not known")
    draft_device: str | None = Field(default=None, description="what the draft ran on; absent: not known")
    timed: Literal["alone", "at work"] = Field(
        default="alone",
        description="alone: each phase by itself; at work: within runs",
    )
    measured_rounds: tuple[MeasuredRound, ...] = Field(default=(), description="of whole runs, by sequences together")
    verify_s: TimeModel = Field(description="one target forward, by rows: batch * (draft tokens + 1)")
    draft_step_s: TimeModel = Field(description="one step of the draft's chain, by sequences")
    draft_tree_step_s: TimeModel = Field(
        description="one step of the draft over all branches, by branches of the batch"
    )
    draft_extension_s: TimeModel | None = Field(
        default=None,
        description="the draft's forward over the tokens under verification before it grows a tree, by rows; absent: "
        "within the tree steps' times",
    )
    autoregressive_step_s: TimeModel | None = Field(
        default=None, description="one autoregressive step, by sequences; absent: the target forward over as many rows"
    )
    head_step_s: TimeModel | None = Field(
        default=None, description="one step of an EAGLE head, by rows; absent: not known, the draft's are taken"
    )
    rank_slices: tuple[RankSlice, ...] = Field(
        default=(), description="one rank's part of the target, by how many share it; absent: not measured"
    )
    draft_gpus: int = Field(default=1, ge=1, description="devices among which the branches of a tree are divided")
    drafts_in_turn: int = Field(
        default=1,
        ge=1,
        description="drafts that share each of them, and take turns, each with its part of the sequences",
    )
    prepares: bool = Field(
        default=True, description="is a round that hits prepared, so that it does not wait for the host?"
    )
    fast_fallback_s: Seconds = Field(
        default=0.0, description="what a `fast` fallback costs; `jit` costs k steps of the chain"
    )
    fallback_host_s: TimeModel | None = Field(
        default=None,
        description="the host's part of an asynchronous round that was not prepared, by sequences: from when outcome "
        "and tree are there, without the steps of a chain; absent: not measured, none is counted",
    )
    link_s: Seconds = Field(default=0.0, description="outcome there and speculation back, each async round")
    turnaround_s: Seconds = Field(
        default=0.0,
        description="from the end of one tree to the start of the next where the outcome is there already: the draft "
        "reads it and answers",
    )
    overhead_s: Seconds = Field(default=0.0, description="host time of each round that nothing hides")

    @property
    def shares_device(self) -> bool:
        """Do target and draft take one device from each other, without the times knowing it?"""
        return self.timed == "alone" and self.target_device is not None and self.target_device == self.draft_device

    @property
    def notes(self) -> tuple[str, ...]:
        """The caveats, and what is known of asynchronous rounds: said with every answer."""
        if self.timed == "at work":
            return self.caveats
        if self.shares_device:
            told = f"target and draft share one device ({self.target_device}): in asynchronous rounds they take turns"
            known = any(one.drafting == "async" for one in self.measured_rounds)
            return (*self.caveats, f"{told}, as long as measured ones" if known else told)
        if self.target_device is None or self.draft_device is None:
            unknown = "the profile does not say which devices target and draft had: one each is assumed"
            return (*self.caveats, unknown)
        return self.caveats

    def with_draft_gpus(self, count: int) -> HardwareProfile:
        """The same times, the draft on so many devices of its own. Raises ConfigError for none."""
        if count < 1:
            raise ConfigError(f"draft_gpus is {count}; it must be at least 1")
        changed: dict[str, Any] = {"draft_gpus": count}
        if self.shares_device:
            assumed = f"assumed, not measured: the draft has {count} device{'s' * (count > 1)} of its own"
            changed |= {
                "draft_device": f"{count} of its own",
                "caveats": (*self.caveats, assumed),
                "measured_rounds": tuple(one for one in self.measured_rounds if one.drafting != "async"),
            }
        return self.model_copy(update=changed)

    def with_target_ranks(
        self, ranks: int, *, sums: int | None = None, sum_s: TimeModel | None = None
    ) -> HardwareProfile:
        """The same machine, the target over so many of its devices: the measured part of one rank, and the sums of a
        forward. Where the part was not measured it is an equal part of the forward, and `sums` says how many there are;
        sum_s: seconds of one, by rows. A note says what was assumed.

        Raises ConfigError where neither is known.
        """
        if ranks == 1:
            return self
        part, said = slice_of(self.rank_slices, ranks), []
        if part is None and sums is None:
            raise ConfigError(
                f"the part of one of {ranks} ranks was not measured: give it to the profile with `ssd-lab profile "
                f"--ranks {ranks}`"
            )
        if part is None:
            said.append(f"assumed, not measured: one of {ranks} ranks takes 1/{ranks} of the whole forward")
            step_s = self.autoregressive_step_s or self.verify_s
            forwards, sums = (divided(self.verify_s, ranks), divided(step_s, ranks)), sums or 0
        else:
            forwards, sums = (part.verify_s, part.autoregressive_step_s), part.sums
        if sum_s is None:
            said.append("assumed, not measured: sums over the ranks as between two H200")
        verify_s, step_s = (with_sums(one, sums, sum_s or ASSUMED_SUM_S) for one in forwards)
        return self.model_copy(
            update={
                "verify_s": verify_s,
                "autoregressive_step_s": step_s,
                "measured_rounds": (),
                "overhead_s": self.host_s,
                "caveats": (*self.caveats, *said),
            }
        )

    def round_factor(self, drafting: Drafting, sequences: int) -> float:
        """How much longer rounds of so many sequences are than their phases say, by the measured ones; 1 if there are
        none. Between two sizes the seconds lie between theirs, measured and priced ones for themselves: the ratio of
        two straight lines is none.
        """
        known = {one.sequences: one for one in self.measured_rounds if one.drafting == drafting}
        if not known:
            return 1.0
        low = known[max((size for size in known if size <= sequences), default=min(known))]
        high = known[min((size for size in known if size >= sequences), default=max(known))]
        width = high.sequences - low.sequences
        share = (sequences - low.sequences) / width if width > 0 else 0.0
        seconds = low.seconds + share * (high.seconds - low.seconds)
        return seconds / (low.priced_s + share * (high.priced_s - low.priced_s))

    @property
    def host_s(self) -> float:
        """What an autoregressive round of one device took beyond its phases."""
        beyond = [one.seconds - one.priced_s for one in self.measured_rounds if one.drafting == "none"]
        return max(0.0, min(beyond, default=self.overhead_s))

    def autoregressive_s(self, sequences: int) -> float:
        """Seconds of one autoregressive step, overhead included."""
        step_s = (self.autoregressive_step_s or self.verify_s).at(sequences) + self.overhead_s
        return step_s * self.round_factor("none", sequences)

    def tree_s(self, *, steps: int, branches: int, rows: int, sequences: int = 1) -> float:
        """Seconds to prepare `branches` branches in all, `steps` deep, behind `rows` rows under verification; no steps
        are no tree. Each of several drafts on one device reads all weights for its part of the sequences.
        """
        if not steps:
            return 0.0
        drafts = min(self.drafts_in_turn, sequences)
        extension_s = 0.0 if self.draft_extension_s is None else self.draft_extension_s.at(-(-rows // drafts))
        fullest = -(-branches // (self.draft_gpus * drafts))
        return drafts * (extension_s + steps * self.draft_tree_step_s.at(fullest))

    def for_head(self) -> HardwareProfile:
        """The same machine with an EAGLE head as the draft; without its times a caveat says so."""
        if self.head_step_s is None:
            caveat = "no times of an EAGLE head in this profile: those of the draft model were taken"
            return self.model_copy(update={"caveats": (*self.caveats, caveat)})
        head = self.head_step_s
        as_draft = {"head": "chain", "head async": "async"}  # rounds of the draft model tell nothing of a head's
        rounds = [one for one in self.measured_rounds if one.drafting not in as_draft.values()]
        renamed = [one.model_copy(update={"drafting": as_draft.get(one.drafting, one.drafting)}) for one in rounds]
        return self.model_copy(
            update={
                "draft_step_s": head,
                "draft_tree_step_s": head,
                "draft_extension_s": None,
                "measured_rounds": tuple(renamed),
            }
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write as JSON. OSError if the place cannot be written."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> HardwareProfile:
        """Read what `save` wrote; raises ConfigError if it is missing or not a profile."""
        try:
            return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"no hardware profile at {path}: {error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not a hardware profile: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            said = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
            raise ConfigError(f"{path} is not a hardware profile: {said}") from error
