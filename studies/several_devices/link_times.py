"""How long a round's messages travel, through shared memory and over the socket, and what that is of a whole round.

`python -m studies.several_devices.link_times`: both ways in one run, turn by turn, with the same payload.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ssd_lab import LLM, SamplingParams
from ssd_lab.bench.multi.answers import Answers, K
from ssd_lab.bench.multi.messages_cell import there_and_back as trips_over
from ssd_lab.drafting.worker_setup import WorkerSetup
from ssd_lab.links.link import Link
from ssd_lab.links.process_link import ProcessLink
from studies.several_devices import say

PAYLOADS = {  # rows, length of a distribution (0: temperature 0)
    "1 row, greedy": (1, 0),
    "16 rows, greedy": (16, 0),
    "1 row of 4,096 probabilities": (1, 4096),
    "16 rows of 4,096 probabilities": (16, 4096),
    "1 row of 151,936 probabilities": (1, 151_936),
}
PROMPTS = ["Tell me about the sea.", "What is 12 + 7?", "Write a line about rain.", "Who are you?"]


def there_and_back(rows: int, vocab: int, trips: int) -> dict[str, float]:
    """Microseconds from asking to the answer, by the way it took: the tenth part that was fastest took no longer."""
    times: dict[str, list[float]] = {"socket": [], "memory": []}
    with ExitStack() as closing:
        links: dict[str, Link] = {}
        for way in times:
            links[way] = ProcessLink(Answers(rows, vocab, way == "memory"), start_timeout_s=120)
            closing.callback(links[way].close)
        for _ in range(trips):
            for way, link in links.items():
                times[way] += trips_over(link, rows, 1)
    return {way: statistics.quantiles(each[trips // 10 :], n=10)[0] for way, each in times.items()}


@contextmanager
def over_the_socket() -> Iterator[None]:
    """Drafts that are started meanwhile are reached by their socket alone."""
    slots = WorkerSetup.slots
    WorkerSetup.slots = property(lambda setup: None)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        WorkerSetup.slots = slots  # type: ignore[method-assign]


def whole_rounds(batch: int, temperature: float, runs: int, *, record: bool) -> dict[str, float]:
    """Milliseconds of a round of the bundled pair, k = 6, f = 3, in the fastest run, by the way its messages took."""
    params = SamplingParams(max_tokens=64, temperature=temperature, ignore_eos=True, seed=1)
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(batch)]
    options: dict[str, Any] = {"strategy": "async_tree", "k": K, "f": 3, "threads": 1, "progress": False}
    with ExitStack() as opened:
        engines: dict[str, LLM] = {}
        with over_the_socket():
            engines["socket"] = opened.enter_context(LLM(**options, record=record))
        engines["memory"] = opened.enter_context(LLM(**options, record=record))
        times: dict[str, list[float]] = {way: [] for way in engines}
        for run in range(runs):
            for way, llm in engines.items():
                start_s = time.perf_counter()
                result = llm.run(prompts, params)
                took_s = time.perf_counter() - start_s
                if run:
                    times[way].append(1e3 * took_s / max(1, result.metrics.num_rounds))
    return {way: min(each) for way, each in times.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trips", type=int, default=2000, help="messages there and back, of each way")
    parser.add_argument("--runs", type=int, default=9, help="runs of whole rounds, of each way")
    chosen = parser.parse_args()
    say("| payload | socket us | memory us | socket / memory |\n| --- | --- | --- | --- |")
    for name, (rows, vocab) in PAYLOADS.items():
        found = there_and_back(rows, vocab, chosen.trips if rows * vocab < 100_000 else chosen.trips // 4)
        say(f"| {name} | {found['socket']:.0f} | {found['memory']:.0f} | {found['socket'] / found['memory']:.2f} |")
    say("\n| round | socket ms | memory ms | socket / memory |\n| --- | --- | --- | --- |")
    for batch, temperature, record in ((1, 0.0, False), (1, 0.0, True), (4, 0.0, True), (4, 1.0, True)):
        found = whole_rounds(batch, temperature, chosen.runs, record=record)
        kept = "recorded" if record else "not recorded"
        name = f"batch {batch}, temperature {temperature:g}, {kept}"
        say(f"| {name} | {found['socket']:.2f} | {found['memory']:.2f} | {found['socket'] / found['memory']:.3f} |")


if __name__ == "__main__":
    main()
