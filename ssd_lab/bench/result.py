"""What a benchmark run measured, as plain data that can be stored and read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from pydantic import TypeAdapter

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.figures import estimates
from ssd_lab.bench.repeat import RepeatResult
from ssd_lab.common.statistics import Estimate
from ssd_lab.errors import ConfigError

RESULT_VERSION = 1


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
        """Plain data, ready for JSON; the estimates are for readers, and derived again when read back."""
        data: dict[str, Any] = _stored().dump_python(self, mode="json")
        for name, dataset in self.datasets.items():
            data["datasets"][name]["estimates"] = {key: each.as_dict() for key, each in dataset.estimates.items()}
        return {"version": RESULT_VERSION, **data}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BenchResult:
        """What `as_dict` gave; raises ConfigError for another version's."""
        if data.get("version") != RESULT_VERSION:
            raise ConfigError(
                f"the result has version {data.get('version')!r} and this program reads {RESULT_VERSION}: measure again"
            )
        return _stored().validate_python(data)


@lru_cache(maxsize=1)
def _stored() -> TypeAdapter[BenchResult]:
    """Reads and writes the plain data of a result; what is derived from the rest (the estimates) is passed over."""
    return TypeAdapter(BenchResult)
