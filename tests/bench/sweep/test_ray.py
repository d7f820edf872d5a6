"""The same cells on a local Ray: same table, a dead worker fails its own cell only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssd_lab.bench import ray_backend
from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.ray_backend import RayBackend
from ssd_lab.bench.store import RunTable
from ssd_lab.bench.sweep import Failures, expand, run_sweep
from ssd_lab.errors import ConfigError

Cheap = Callable[..., BenchConfig]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install -e '.[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        _start(ray)
        yield ray
        ray.shutdown()


def _start(ray: Any) -> None:
    """Ray waits 30 s for its own processes, which is not enough on every busy machine."""
    options = {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    for tries_left in (2, 1, 0):
        try:
            ray.init(address="local", **options)
            return
        except Exception:
            ray.shutdown()
            if not tries_left:
                raise


@pytest.mark.full
@pytest.mark.timeout(240)
def test_cells_on_ray_give_the_table_of_cells_run_here(tmp_path: Path, cheap: Cheap, local_ray: Any):
    cells = [*expand(cheap(), {"k": [1, 2]}), cheap(output_len=60)]
    here, there = RunTable(tmp_path / "here.sqlite"), RunTable(tmp_path / "there.sqlite")
    one = run_sweep(cells, here)
    other = run_sweep(cells, there, workers=RayBackend(cpus_per_cell=1), group="ray")
    assert [(result.config, result.digests) for result in other] == [(result.config, result.digests) for result in one]
    assert {row.group for row in there.list()} == {"ray"}
    assert [failure.error for failure in Failures(there).list()] == [failure.error for failure in Failures(here).list()]
    assert local_ray.is_initialized()  # ours to end, not the sweep's


@pytest.mark.full
def test_a_worker_that_dies_fails_its_cell(
    tmp_path: Path, cheap: Cheap, local_ray: Any, monkeypatch: pytest.MonkeyPatch
):
    def dies(_: dict[str, Any]) -> dict[str, Any]:
        import os

        os._exit(1)

    monkeypatch.setattr(ray_backend, "_run_remotely", dies)
    table = RunTable(tmp_path / "runs.sqlite")
    assert run_sweep([cheap()], table, workers=RayBackend(cpus_per_cell=1)) == []
    assert Failures(table).list()[0].error.startswith("WorkerCrashedError: ")


class FakeRay:
    """Two machines, one with GPUs."""

    @staticmethod
    def nodes() -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": {"CPU": 8.0}},
            {"Alive": True, "Resources": {"CPU": 32.0, "GPU": 4.0}},
            {"Alive": False, "Resources": {"CPU": 1.0}},
        ]


def test_a_cell_has_a_machine_for_itself_or_the_share_of_its_gpus(cheap: Cheap):
    resources = RayBackend()._resources
    assert resources(FakeRay, cheap(device="cpu")) == {"num_cpus": 8.0, "num_gpus": 0}
    assert resources(FakeRay, cheap(device="auto", num_gpus=1)) == {"num_cpus": 8.0, "num_gpus": 1}
    assert resources(FakeRay, cheap(device="cuda", num_gpus=4)) == {"num_cpus": 32.0, "num_gpus": 4}
    assert RayBackend(cpus_per_cell=2)._resources(FakeRay, cheap(device="cpu")) == {"num_cpus": 2, "num_gpus": 0}
    with pytest.raises(ConfigError, match="no machine of the Ray cluster has more than 4"):
        resources(FakeRay, cheap(device="cuda", num_gpus=8))


def test_without_ray_it_says_what_to_install(tmp_path: Path, cheap: Cheap, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[ray\]'"):
        run_sweep([cheap()], RunTable(tmp_path / "runs.sqlite"), workers="ray")
