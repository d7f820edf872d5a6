"""What is asked of a server, and when: the same prompts, seeds and arrival times for every server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.data import BenchPrompt
from ssd_lab.bench.session import request_seed


@dataclass(frozen=True)
class Ask:
    """One request. prompt_id: of a prompt whose text is compared as text, each pass over the prompts apart."""

    prompt_id: str
    text: str
    max_tokens: int
    seed: int


def asks(config: BenchConfig, dataset: str, prompts: list[BenchPrompt], repeat: int) -> Iterator[Ask]:
    """Requests without end: the prompts in their order, over and over."""
    for count in itertools.count():
        for prompt in prompts:
            name = f"{prompt.id}/text" + (f"#{count + 1}" if count else "")
            seed = abs(request_seed(config.seed, dataset, repeat, name)) % 2**31
            yield Ask(name, prompt.text, config.output_len, seed)


def warm_up_asks(config: BenchConfig, dataset: str, prompts: list[BenchPrompt], count: int) -> list[Ask]:
    """Requests that do not count, of the last prompts: a server that keeps prefixes gains least from those."""
    backwards = itertools.islice(itertools.cycle(reversed(prompts)), count)
    return [Ask(f"warm-up/{number}", each.text, config.output_len, number) for number, each in enumerate(backwards)]


def arrival_times(config: BenchConfig, repeat: int) -> list[float]:
    """Seconds from the start at which the requests of an open loop come, by the seed alone; the first at 0."""
    load = config.load
    assert load is not None
    assert load.rate is not None
    draw = np.random.default_rng([config.seed & 0xFFFFFFFF, repeat])
    times: list[float] = []
    now_s = 0.0
    while now_s < load.duration_s if load.duration_s is not None else len(times) < config.num_sequences:
        times.append(now_s)
        now_s += float(draw.exponential(1 / load.rate)) if load.arrivals == "poisson" else 1 / load.rate
    return times
