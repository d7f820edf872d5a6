"""Processes that were started together by `torchrun`: the first runs the program, the others work for it."""

from __future__ import annotations

import atexit
import json
import socket
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist

import ssd_lab
from ssd_lab.devices import DevicePlacement, rank_of
from ssd_lab.errors import ConfigError, RankError
from ssd_lab.hosts.launcher import Launcher, LauncherServer
from ssd_lab.hosts.places import LOOPBACK, Place, Places
from ssd_lab.settings import TorchRun, torchrun

STORE_S = 300.0  # for the store of torchrun to be there
LOOK_S = 0.25  # between two looks at whether the first process is done
LEAVE_S = 5.0  # for the others to hear of it
OVER, LEFT = "ssd_lab/over", "ssd_lab/left"


def find(asked: DevicePlacement, limit_s: float) -> Places:
    """The places of these ranks, in the first process, once they are there. In every other process it does not return:
    that one works for the first until the program there ends, then leaves its own (SystemExit).

    Raises ConfigError where there are no such ranks, and RankError where one does not come within the limit.
    """
    run = torchrun()
    if run is None:
        raise ConfigError(
            f"placement {str(asked)!r} names ranks, and this program was not started by torchrun, which numbers them: "
            "start it by torchrun --nproc-per-node N, or name devices"
        )
    ranks = [rank_of(name) for name in (*asked.target, *asked.draft)]
    if max(ranks) >= run.world_size:
        raise ConfigError(
            f"placement {str(asked)!r} names rank:{max(ranks)}, and torchrun started {run.world_size}: "
            f"rank:0 to rank:{run.world_size - 1}"
        )
    store = _store()
    if run.rank:
        _serve(run, store)
    _say_when_it_is_over(run.world_size)
    entries = {rank: _entry_of(rank, store, limit_s) for rank in ranks if rank}
    others = [entry for entry in entries.values() if entry["host"] != run.host]
    own = _address_towards(others[0]["launcher"]["address"], others[0]["launcher"]["port"]) if others else LOOPBACK
    places = {0: Place(_device(_described(run), 0), run.host, own)}
    for rank, entry in entries.items():
        launcher = Launcher(**entry["launcher"])
        address = own if entry["host"] == run.host else launcher.address
        places[rank] = Place(_device(entry, rank), entry["host"], address, launcher)
    kinds = {place.device.partition(":")[0] for place in places.values()}
    if len(kinds) > 1:
        raise ConfigError(
            f"placement {str(asked)!r}: some of these ranks have a GPU and some have none; name ranks of one kind, or "
            "hide the GPUs from all (CUDA_VISIBLE_DEVICES=)"
        )
    found = [places[rank] for rank in ranks]
    return Places(asked, tuple(found[: len(asked.target)]), tuple(found[len(asked.target) :]))


@lru_cache(maxsize=1)
def _store() -> Any:
    """What torchrun's processes tell each other through; asked for once by each."""
    store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=STORE_S)))
    return store


@lru_cache(maxsize=1)
def _say_when_it_is_over(world_size: int) -> None:
    """When this program ends, however it does but for signals: the others leave theirs."""

    def say() -> None:
        store, end_s = _store(), time.monotonic() + LEAVE_S
        with suppress(RuntimeError):
            store.set(OVER, "")
            waiting = [rank for rank in range(1, world_size) if store.check([_key(rank)])]
            while store.add(LEFT, 0) < len(waiting) and time.monotonic() < end_s:
                time.sleep(0.02)

    atexit.register(say)


def _serve(run: TorchRun, store: Any) -> None:
    with LauncherServer(_address_towards(run.address, run.port)) as server, server.at_work(run.rank) as launcher:
        try:
            store.set(_key(run.rank), json.dumps({**_described(run), "launcher": asdict(launcher)}))
            while not store.check([OVER]):
                time.sleep(LOOK_S)
            store.add(LEFT, 1)
        except RuntimeError as error:
            raise RankError(f"rank {run.rank} of torchrun worked for rank 0, which is gone: {error}") from None
    raise SystemExit(0)


def _entry_of(rank: int, store: Any, limit_s: float) -> dict[str, Any]:
    try:
        store.wait([_key(rank)], timedelta(seconds=limit_s))
    except RuntimeError as error:
        raise RankError(
            f"rank {rank} of torchrun did not come within {limit_s:g} s: every process must run the same program, and "
            "come to its LLM of this placement"
        ) from error
    entry: dict[str, Any] = json.loads(store.get(_key(rank)))
    if entry["version"] != ssd_lab.__version__:
        raise ConfigError(
            f"rank {rank} of torchrun has ssd_lab {entry['version']}, and rank 0 has {ssd_lab.__version__}: install "
            "the same one on every host"
        )
    return entry


def _described(run: TorchRun) -> dict[str, Any]:
    return {
        "host": run.host,
        "local_rank": run.local_rank,
        "gpus": torch.cuda.device_count(),
        "version": ssd_lab.__version__,
    }


def _device(entry: dict[str, Any], rank: int) -> str:
    """The GPU of its own, or the CPU where its host has none."""
    local, gpus = entry["local_rank"], entry["gpus"]
    if gpus and local >= gpus:
        raise ConfigError(
            f"rank:{rank} is process {local} of its host, counted from 0, and {gpus} GPUs are there: start no more "
            f"processes there (--nproc-per-node {gpus})"
        )
    return f"cuda:{local}" if gpus else "cpu"


def _address_towards(address: str, port: int) -> str:
    """This host's address on the way to another one; nothing is sent."""
    family, kind, _, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as way:
        way.connect(target)
        return str(way.getsockname()[0])


def _key(rank: int) -> str:
    return f"ssd_lab/rank/{rank}"
