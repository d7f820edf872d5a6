"""Measure servers side by side: the same requests at the same times, taking turns, repeat by repeat."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.data import BenchPrompt
from ssd_lab.bench.inputs import prompts_of
from ssd_lab.bench.repeat import RepeatResult
from ssd_lab.bench.result import BenchResult, DatasetResult
from ssd_lab.bench.serving.client import Client, Timing
from ssd_lab.bench.serving.loops import OnDone, closed_loop, open_loop
from ssd_lab.bench.serving.measured import SERVER, notes_of, repeat_of
from ssd_lab.bench.serving.workload import arrival_times, asks, warm_up_asks
from ssd_lab.client.address import Address, model_names, timeouts
from ssd_lab.common.progress import progress_bar
from ssd_lab.display import environment
from ssd_lab.errors import ConfigError, ServerError

LOOK_S = 30.0  # for the list of a server's models
WARM_UP_CLIENTS = 4
_IGNORE_EOS = "ignore_eos is no field of OpenAI's own: --no-ignore-eos leaves it out"


def chosen_model(address: Address, wanted: str | None) -> str:
    """The model to ask of a server: the one that is wanted, or its first. Raises ServerError or ConfigError."""
    with httpx.Client(timeout=timeouts(LOOK_S), follow_redirects=True) as client:
        names = model_names(client, address)
    if wanted is not None and wanted not in names:
        raise ConfigError(f"{address.base} has no model {wanted!r}: it has {', '.join(names)}")
    return wanted or names[0]


def run_load(
    configs: Sequence[BenchConfig], addresses: Sequence[Address], *, command: str = "", progress: bool = False
) -> list[BenchResult]:
    """Measure servers in turns, each by its config (`load` says how) at its address.

    Raises ServerError before anything is measured if a server refuses the requests that warm it up.
    """
    servers = [_Server(config, address) for config, address in zip(configs, addresses, strict=True)]
    for server in servers:
        asyncio.run(server.warm_up())
    for repeat in range(max(config.repeats for config in configs)):
        for server in servers:
            if repeat < server.config.repeats:
                for dataset in server.prompts:
                    with progress_bar(server.expected, server.label, "request", enabled=progress) as bar:
                        asyncio.run(server.measure(dataset, repeat, partial(_count, bar)))
    return [server.result(command) for server in servers]


def _count(bar: Any, timing: Timing) -> None:
    bar.update(1)


@dataclass
class _Server:
    """One server and what was measured of it."""

    config: BenchConfig
    address: Address
    prompts: dict[str, list[BenchPrompt]] = field(default_factory=dict)
    repeats: dict[str, list[RepeatResult]] = field(default_factory=dict)
    timings: list[Timing] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.config.load is None:
            raise ConfigError("this configuration has no load: give one, with the server's address")
        self.load = self.config.load
        self.prompts = {name: prompts_of(self.config, name, None) for name in self.config.datasets}
        self.repeats = {name: [] for name in self.prompts}

    @property
    def label(self) -> str:
        return self.load.label

    @property
    def expected(self) -> int | None:
        """Requests of one pass, where that is known."""
        if self.load.duration_s is None:
            return self.config.num_sequences
        return None if self.load.rate is None else len(arrival_times(self.config, 0))

    async def warm_up(self) -> None:
        """Requests that do not count; if not one works, none that counts would."""
        dataset, prompts = next(iter(self.prompts.items()))
        many = warm_up_asks(self.config, dataset, prompts, self.load.warmup)
        async with Client(self.address, self.config) as client:
            done = await closed_loop(
                client, iter(many), clients=WARM_UP_CLIENTS, most=None, until_s=None, on_done=lambda _: None
            )
        errors = [each.error for each in done if each.error is not None]
        if errors and len(errors) == len(done):
            hint = f"; {_IGNORE_EOS}" if self.config.ignore_eos else ""
            raise ServerError(f"{self.label}: not one request worked: {errors[0]}{hint}", errors[0].reason)

    async def measure(self, dataset: str, repeat: int, on_done: OnDone) -> None:
        """One pass over the requests of a data set."""
        load, config = self.load, self.config
        many = asks(config, dataset, self.prompts[dataset], repeat)
        async with Client(self.address, config) as client:
            client.start_clock()
            if load.rate is None:
                most = config.num_sequences if load.duration_s is None else None
                timings = await closed_loop(
                    client, many, clients=load.concurrency or 1, most=most, until_s=load.duration_s, on_done=on_done
                )
            else:
                times_s = arrival_times(config, repeat)
                timings = await open_loop(client, itertools.islice(many, len(times_s)), times_s, on_done=on_done)
        self.timings += timings
        self.repeats[dataset].append(repeat_of(timings, load))

    def result(self, command: str) -> BenchResult:
        """As any other benchmark's: the machine is the generator's."""
        where: dict[str, Any] = {**environment.describe(), "run": {"command": command, "measured": "from the client"}}
        datasets = {name: DatasetResult(name, tuple(repeats)) for name, repeats in self.repeats.items()}
        notes = (*notes_of(self.timings, self.load), SERVER)
        return BenchResult(self.config, where, datasets, exact=True, notes=notes)
