"""What sharing a target costs on a CPU: a sum over ranks, telling them of a step, starting them, and their memory.

`python -m studies.several_devices.rank_times`. Ranks that share two processors wait for each other's turns, so these
are no figures of several devices: they say what is paid besides the work.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.hosts.places import Place
from ssd_lab.models.group import Group
from ssd_lab.ranks.distributed import DistributedGroup
from ssd_lab.ranks.meeting import Meeting
from ssd_lab.ranks.messages import Layout
from ssd_lab.ranks.rank_worker import Share
from ssd_lab.ranks.shared_memory import SharedMemoryGroup
from ssd_lab.ranks.team import RankTeam
from studies.several_devices import say
from studies.several_devices.nothing import Nothing

HIDDEN = 512
LIMIT_S = 120.0
PROMPTS = ["Tell me about the sea.", "What is 12 + 7?", "Write a line about rain.", "Who are you?"]
RANK = """
import sys
from studies.several_devices.rank_times import rank_of
rank_of(*sys.argv[1:])
"""


def rank_of(transport: str, rank: str, size: str, folder: str, rows: str, trips: str) -> list[float]:
    """One rank's part in `sums`; microseconds of each sum."""
    torch.set_num_threads(1)
    meeting = Meeting(folder, int(size), LIMIT_S)
    group: Group
    if transport == "memory":
        group = SharedMemoryGroup(int(rank), meeting)
    else:
        group = DistributedGroup.over_gloo(int(rank), meeting)
    own, times = torch.randn(int(rows), HIDDEN), []
    for _ in range(int(trips)):
        start_s = time.perf_counter()
        group.total(own)
        times.append(1e6 * (time.perf_counter() - start_s))
    group.close()
    return times


def sums(transport: str, size: int, rows: int, trips: int) -> float:
    """Median microseconds of the sum of `[rows, 512]` in float32 over so many processes."""
    meeting = Meeting.called(size, LIMIT_S)
    SharedMemoryGroup.prepare(meeting)
    told = [str(each) for each in (size, meeting.name, rows, trips)]
    others = [subprocess.Popen([sys.executable, "-c", RANK, transport, str(rank), *told]) for rank in range(1, size)]
    try:
        times = rank_of(transport, "0", *told)
    finally:
        for other in others:
            other.wait(LIMIT_S)
        meeting.is_over()
    return statistics.median(times[trips // 10 :])


def telling(size: int, trips: int) -> tuple[float, float, int]:
    """Median microseconds of a step that the ranks know, and of one that they are told of for the first time; bytes of
    a step's inputs of 16 rows.
    """
    share = Share(str(demo.TARGET), "float32", "cpu", bitwise=False, kernels="auto")
    team = RankTeam(share, [Place("cpu")] * size, threads=1, limit_s=LIMIT_S, progress=False)
    inputs = torch.zeros(16, 90, dtype=torch.int64)  # lengths, tokens, tables, sampling
    try:
        team.allocate(2, 16, eager=True, debug_memory=False)

        def took_us(phases: Sequence[Nothing]) -> float:
            times = []
            for phase in phases:
                start_s = time.perf_counter()
                with team.running(phase, inputs):
                    pass
                times.append(1e6 * (time.perf_counter() - start_s))
            return statistics.median(times)

        new = took_us([Nothing(number) for number in range(trips)])
        return took_us([Nothing(trips - 1)] * trips), new, Layout.of((inputs,)).num_bytes
    finally:
        team.close()


@dataclass(frozen=True)
class Whole:
    """A whole engine. megabytes: of each rank's process (resident, its private part)."""

    start_s: float
    round_ms: float
    weights_mb: float
    kv_mb: float
    megabytes: list[float]


def whole(ranks: int, batch: int) -> Whole:
    """The bundled target in float32, autoregressive."""
    start_s = time.perf_counter()
    options: dict[str, Any] = {"strategy": "autoregressive", "dtype": "float32", "progress": False}
    with LLM(**options, placement={"target": ["cpu"] * ranks}) as llm:
        started_s = time.perf_counter() - start_s
        result = llm.run(PROMPTS[:batch], SamplingParams(max_tokens=48, ignore_eos=True))
        plan = llm.memory_plan.as_dict()
        parts = next(iter(plan["others"].values()), plan["parts"])
        processes = ["self", *_children()]
        return Whole(
            started_s,
            1e3 * statistics.median(record.end_s - record.start_s for record in result.trace.rounds),
            parts["target weights"] / 1e6,
            parts["KV blocks"] / 1e6,
            [_private_mb(process) for process in processes],
        )


def _children() -> list[str]:
    path = Path("/proc/self/task")
    return [child for task in path.iterdir() for child in (task / "children").read_text(encoding="utf-8").split()]


def _private_mb(process: str) -> float:
    """Memory that this process alone has."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1e3


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trips", type=int, default=500, help="sums and steps, of each kind")
    chosen = parser.parse_args()
    say("| ranks | rows of 512 | shared memory us | gloo us |\n| --- | --- | --- | --- |")
    for size in (2, 4):
        for rows in (1, 8, 112):
            found = [sums(transport, size, rows, chosen.trips) for transport in ("memory", "gloo")]
            say(f"| {size} | {rows} | {found[0]:.0f} | {found[1]:.0f} |")
    say("\n| ranks | a step that is known, us | a new one, us | bytes of inputs |\n| --- | --- | --- | --- |")
    for size in (2, 4):
        known, new, size_bytes = telling(size, chosen.trips)
        say(f"| {size} | {known:.0f} | {new:.0f} | {size_bytes:,} |")
    say("\n| ranks | start s | round ms, batch 4 | weights MB | KV blocks MB | private MB of each process |")
    say("| --- | --- | --- | --- | --- | --- |")
    for ranks in (1, 2, 4):
        row = whole(ranks, batch=4)
        each = ", ".join(f"{size:.0f}" for size in row.megabytes)
        figures = f"{row.start_s:.1f} | {row.round_ms:.1f} | {row.weights_mb:.1f} | {row.kv_mb:.1f}"
        say(f"| {ranks} | {figures} | {each} |")


if __name__ == "__main__":
    main()
