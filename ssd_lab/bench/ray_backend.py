"""Runs a sweep's cells on Ray: one cell a machine at a time unless told otherwise, since neighbours disturb clocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ssd_lab.bench.cell import CellOutcome, run_cell
from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.result import BenchResult
from ssd_lab.errors import ConfigError


@dataclass(frozen=True)
class RayBackend:
    """Fans cells out on the Ray that runs here, the one that `RAY_ADDRESS` names, or else one started for the purpose.

    address: of a cluster; None leaves it to Ray. cpus_per_cell: CPUs that a cell has for itself; None: all of the
    smallest machine (with GPUs: the share that goes with the cell's GPUs). Raises ConfigError if Ray is not installed.
    """

    address: str | None = None
    cpus_per_cell: float | None = None

    def __call__(self, configs: Sequence[BenchConfig]) -> Iterator[CellOutcome]:
        """Outcomes as cells finish. A worker that dies fails its cell only."""
        ray = _ray()
        started_here = not ray.is_initialized()
        if started_here:
            ray.init(address=self.address, include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            remote = ray.remote(max_retries=0, max_calls=1)(_run_remotely)  # a fresh process each: nothing is left over
            waiting = {
                remote.options(**self._resources(ray, config)).remote(config.model_dump(mode="json")): config
                for config in configs
            }
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                yield _outcome(ray, done, waiting.pop(done))
        finally:
            if started_here:
                ray.shutdown()

    def _resources(self, ray: Any, config: BenchConfig) -> dict[str, float]:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if config.device == "cpu" or not any(node.get("GPU") for node in nodes):
            return {"num_cpus": self.cpus_per_cell or min(node.get("CPU", 1.0) for node in nodes), "num_gpus": 0}
        with_gpus = [node for node in nodes if node.get("GPU", 0) >= config.num_gpus]
        if not with_gpus:
            most = int(max(node.get("GPU", 0) for node in nodes))
            raise ConfigError(
                f"a cell asks for {config.num_gpus} GPUs and no machine of the Ray cluster has more than {most}: "
                "lower num_gpus"
            )
        share = min(node.get("CPU", 1.0) * config.num_gpus / node["GPU"] for node in with_gpus)
        return {"num_cpus": self.cpus_per_cell or share, "num_gpus": config.num_gpus}


def _run_remotely(fields: dict[str, Any]) -> dict[str, Any]:
    """In a worker: plain data in and out, so that driver and worker need not pickle alike."""
    outcome = run_cell(BenchConfig.model_validate(fields))
    return {"error": outcome.error, "result": None if outcome.result is None else outcome.result.as_dict()}


def _outcome(ray: Any, done: Any, config: BenchConfig) -> CellOutcome:
    try:
        answer = ray.get(done)
    except ray.exceptions.RayError as error:  # the worker died, or its machine
        return CellOutcome(config, error=f"{type(error).__name__}: {' '.join(str(error).split())}")
    if answer["result"] is None:
        return CellOutcome(config, error=answer["error"])
    return CellOutcome(config, BenchResult.from_dict(answer["result"]))


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "a sweep on Ray needs the package ray, which is not installed: pip install -e '.[ray]', or take "
            "workers='local'"
        ) from error
    return ray
