"""What a benchmark run measured, as plain data that can be stored and read back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.figures import estimates
from ssd_lab.bench.statistics import Estimate
from ssd_lab.errors import ConfigError
from ssd_lab.trace import Totals

RESULT_VERSION = 1


@dataclass(frozen=True)
class RequestResult:
    """One request of one repeat. Times in seconds; accepted .. lookups: counts over its rounds, 0 without a trace.

    queue_s: from arrival until it left the queue; first_token_s and latency_s count from there (None: it never began,
    or did not end). digest: of its token ids, equal for equal texts.
    """

    prompt_id: str
    num_prompt_tokens: int
    num_output_tokens: int
    finish_reason: str | None
    digest: str
    queue_s: float | None
    first_token_s: float | None
    latency_s: float | None
    rounds: int = 0
    accepted: int = 0
    tested: int = 0
    hits: int = 0
    lookups: int = 0


@dataclass(frozen=True)
class RepeatResult:
    """All prompts of a data set, once. wall_s: from the first request's arrival to the last one's end.

    prefill_s, decode_s: seconds of it in which prompts, and rounds, were computed, without those in which graphs were
    captured or kernels compiled (see `Totals`); totals: counts over all rounds.
    """

    wall_s: float
    prefill_s: float
    decode_s: float
    totals: Totals
    requests: tuple[RequestResult, ...]
    peak_memory_bytes: int | None = None

    @property
    def unprepared_s(self) -> float:
        """The whole time without capturing and compiling."""
        return self.wall_s - self.totals.preparation_s

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated."""
        return sum(request.num_output_tokens for request in self.requests)

    @property
    def num_prefill_tokens(self) -> int:
        """Prompt tokens computed before decoding: all but each prompt's last one, which a round feeds."""
        return sum(request.num_prompt_tokens - 1 for request in self.requests)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RepeatResult:
        """What `dataclasses.asdict` gave."""
        own = dict(data)
        own["totals"] = Totals.from_dict(own["totals"])
        own["requests"] = tuple(RequestResult(**request) for request in own["requests"])
        return cls(**own)


@dataclass(frozen=True)
class DatasetResult:
    """A data set's repeats. num_cut: prompts that were longer than `input_len`. num_gpus: 0 on a CPU."""

    name: str
    repeats: tuple[RepeatResult, ...]
    num_cut: int = 0
    num_gpus: int = 0

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every figure that the repeats tell, by name (`figures.FIGURES` explains them)."""
        return estimates(self.repeats, self.num_gpus)

    def as_dict(self) -> dict[str, Any]:
        """Plain data; the estimates are for readers, and derived again when read back."""
        return {
            "name": self.name,
            "num_cut": self.num_cut,
            "num_gpus": self.num_gpus,
            "estimates": {name: estimate.as_dict() for name, estimate in self.estimates.items()},
            "repeats": [dataclasses.asdict(repeat) for repeat in self.repeats],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DatasetResult:
        """What `as_dict` gave."""
        repeats = tuple(RepeatResult.from_dict(repeat) for repeat in data["repeats"])
        return cls(data["name"], repeats, data["num_cut"], data["num_gpus"])


@dataclass(frozen=True)
class BenchResult:
    """A finished benchmark run.

    environment: hardware, versions and git state, with the run's device, dtype and threads. peers, quality: by data
    set, what the other programs took and how many answers were right. notes: what a reader must know about the figures.
    """

    config: BenchConfig
    environment: dict[str, Any]
    datasets: dict[str, DatasetResult]
    exact: bool
    peers: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def digests(self) -> dict[str, str]:
        """The first repeat's texts as digests, by data set and prompt: what two runs are compared by."""
        return {
            f"{name}/{request.prompt_id}": request.digest
            for name, dataset in self.datasets.items()
            for request in dataset.repeats[0].requests
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "version": RESULT_VERSION,
            "config": self.config.model_dump(mode="json"),
            "environment": self.environment,
            "exact": self.exact,
            "datasets": {name: dataset.as_dict() for name, dataset in self.datasets.items()},
            "peers": self.peers,
            "quality": self.quality,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BenchResult:
        """What `as_dict` gave; raises ConfigError for another version's."""
        if data.get("version") != RESULT_VERSION:
            raise ConfigError(
                f"the result has version {data.get('version')!r} and this program reads {RESULT_VERSION}: measure again"
            )
        return cls(
            config=BenchConfig(**data["config"]),
            environment=data["environment"],
            datasets={name: DatasetResult.from_dict(dataset) for name, dataset in data["datasets"].items()},
            exact=data["exact"],
            peers=data["peers"],
            quality=data["quality"],
            notes=tuple(data["notes"]),
        )
