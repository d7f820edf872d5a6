"""Replicas on Ray: the one that runs here, the one that `RAY_ADDRESS` names, or else one started for the purpose."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.serve.replicas.forwarding import Answers, Replicas
from ssd_lab.serve.replicas.replica import Asked, Load, Replica
from ssd_lab.serve.replicas.shares import Share, gpus_of, share_of
from ssd_lab.strategies.registry import listed

TRIES = 3  # to start Ray
START_S = 1800.0  # longest that replicas may take to load their models
LOOK_S = 0.1
ALL_S = 10.0  # longest wait for an answer of every replica
HEALTH_S = 5.0  # how often Ray Serve asks a replica whether it is well
AT_ONCE = 65_536  # requests that a replica takes: it queues and refuses them itself
NAME = "replica"


class RayReplicas(Replicas):
    """Behind a handle of Ray Serve."""

    def __init__(self, handle: Any, wanted: int) -> None:
        self.wanted = wanted
        self._handle, self._answer = handle, handle.options(method_name="answer", stream=True)

    def ask(self, asked: Asked, marks: tuple[int, ...]) -> Answers:
        """Of the one that the router chooses."""
        answers: Answers = self._answer.remote(asked, marks=marks)
        return answers

    async def everyone(self, method: str, *arguments: Any) -> list[Any]:
        """In no order; one that is being made anew is left out."""
        answers = self._handle.broadcast(method, *arguments)
        try:
            found = await answers.results_async(timeout_s=ALL_S, return_exceptions=True)
        except TimeoutError:
            return []
        return [each for each in found if not isinstance(each, BaseException)]

    def everyone_now(self, method: str) -> list[Any]:
        """The same without an event loop. Raises what a replica raised."""
        found: list[Any] = self._handle.broadcast(method).results(timeout_s=ALL_S)
        return found


@contextmanager
def deployed(load: Load, count: int, told: Callable[[str], None] = lambda _: None) -> Iterator[RayReplicas]:
    """So many replicas, ready, for as long as the block runs. told: hears what is waited for.

    Raises ConfigError if Ray is not installed, the machines have too little, or the models cannot be loaded.
    """
    ray, serve = _ray()
    started_here = not ray.is_initialized()
    if started_here:
        _start(ray)
    name = f"ssd_lab-{secrets.token_hex(4)}"
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        share = _share(load, nodes, count)
        told(f"starting {count} replicas, each with {share.cpus:g} CPUs and {share.gpus} GPUs")
        serve.start(proxy_location="Disabled", logging_config=_QUIET)
        target = serve.RunTarget(_deployment(serve, share, count).bind(load), name, None, _QUIET)
        (handle,) = serve.run_many([target], wait_for_applications_running=False)
        _wait(serve, name, share)
        replicas = RayReplicas(handle, count)
        if failures := [trouble for trouble in replicas.everyone_now("trouble") if trouble]:
            raise ConfigError(failures[0])
        yield replicas
    finally:
        with contextlib.suppress(Exception):  # Ray has ended, or its controller
            serve.delete(name)
        if started_here:
            ray.shutdown()


_QUIET = {"log_level": "WARNING", "enable_access_log": False}


def _start(ray: Any) -> None:
    """Raises ConfigError. Ray waits half a minute for its own processes, which is not enough on every busy machine."""
    for tries_left in range(TRIES - 1, -1, -1):
        try:
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
            return
        except Exception as error:  # Ray raises nothing narrower
            ray.shutdown()
            if not tries_left:
                raise ConfigError(f"Ray did not start: {' '.join(str(error).split())}") from error


def _deployment(serve: Any, share: Share, count: int) -> Any:
    from ssd_lab.serve.replicas.router import PrefixRouter

    return serve.deployment(
        Replica,
        name=NAME,
        num_replicas=count,
        ray_actor_options={"num_cpus": share.cpus, "num_gpus": share.gpus},
        max_ongoing_requests=AT_ONCE,
        max_constructor_retry_count=1,
        request_router_config={"request_router_class": PrefixRouter},
        health_check_period_s=HEALTH_S,
        graceful_shutdown_wait_loop_s=LOOK_S,
        graceful_shutdown_timeout_s=ALL_S,
    )


def _share(load: Load, nodes: list[dict[str, float]], count: int) -> Share:
    engines: list[dict[str, Any]] = [{**load.fields, **own} for _, own in listed(load.fields["strategies"])]
    names: tuple[str, ...] = ("device", "gpus", "placement")
    places = [{name: each[name] for name in names if name in each} for each in engines]
    return share_of(nodes, count, gpus_of(places, any(node.get("GPU") for node in nodes)))


def _wait(serve: Any, name: str, share: Share) -> None:
    """Until all replicas have loaded their models. Raises ConfigError."""
    end_s = time.monotonic() + START_S
    while True:
        application = serve.status().applications[name]
        if application.status == "RUNNING":
            return
        found = application.deployments.get(NAME)
        said = " ".join((found.message if found is not None and found.message else application.message).split())
        if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ConfigError(f"the replicas did not start: {said}")
        if time.monotonic() > end_s:
            raise ConfigError(
                f"not all replicas started within {START_S:g} s, each with {share.cpus:g} CPUs and {share.gpus} GPUs "
                f"({said or 'Ray has found no place for them'}): ask for fewer, or free some"
            )
        time.sleep(LOOK_S)


def _ray() -> tuple[Any, Any]:
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise ConfigError(
            f"replicas need Ray Serve, and {error.name or 'it'} is not installed: in the checkout, "
            "pip install -e '.[ray,serve]' brings it"
        ) from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return ray, serve
