"""Measures a server of the bundled models on this machine, beside the library in the same run; JSON to stdout."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import ssd_lab
from ssd_lab.common.parsing import parse_strategy
from ssd_lab.serve.served import load_served
from studies.serving.client import LIMIT_S, Answer, ask

TOKENS = 128
PROMPTS = (
    "Water is",
    "Bread is made of",
    "The moon is",
    "A computer is",
    "In the morning",
    "Rivers are",
    "My friend",
    "Two and two",
)


@dataclass(frozen=True)
class Sides:
    """A server, its process, and what a strategy is called there; and the library with the same strategy."""

    url: str
    process: int
    model: str
    llm: ssd_lab.LLM


def main() -> None:
    """Everything, or the parts that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Further options are fields of the engines, as --threads 1 or --target NAME.",
    )
    parser.add_argument("parts", nargs="*", help=" ".join(PARTS))
    parser.add_argument("--strategy", action="append", help="as `ssd-lab serve` takes it; repeatable")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the run with many clients")
    parser.add_argument("--window", type=float, default=20.0, help="seconds of each turn of `throughput`")
    parser.add_argument("--clients", type=int, action="append", help="of `overhead`: 1 and 16 by default; repeatable")
    parser.add_argument("--rounds", type=int, default=5, help="how often library and server take turns")
    options, rest = parser.parse_known_args()
    pairs = zip(rest[::2], rest[1::2], strict=True)
    fields = {name.removeprefix("--").replace("-", "_"): value for name, value in pairs}
    strategies = options.strategy or ["sync_chain"]
    found: dict[str, Any] = {"tokens": TOKENS}
    for strategy, sides in both(strategies, fields):
        found[strategy] = {}
        for part in options.parts or PARTS:
            found[strategy][part] = PARTS[part](sides, options)
            sys.stderr.write(f"{strategy}, {part}: {json.dumps(found[strategy][part])}\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def both(strategies: list[str], fields: dict[str, Any]) -> Iterator[tuple[str, Sides]]:
    """Each strategy with a server, which has them all, and with the library."""
    chosen = [parse_strategy(strategy) for strategy in strategies]
    with server(strategies, fields) as (url, process), load_served(strategies=chosen, **fields) as library:
        for strategy, served in zip(strategies, library, strict=True):
            served.llm.warm_up()
            yield strategy, Sides(url, process, served.name, served.llm)


@contextmanager
def server(strategies: list[str], fields: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """In a process of its own: its URL and process id."""
    command = [sys.executable, "-m", "ssd_lab.cli", "serve", "--port", "0", "--no-access-log"]
    command += [f"--strategy={strategy}" for strategy in strategies]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            url = next(line.rsplit(" ", 1)[1].strip() for line in lines if line.startswith("serving "))
            threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
            yield url, process.pid
        finally:
            process.terminate()


def body(number: int, tokens: int = TOKENS, model: str = "") -> dict[str, Any]:
    """The request with this number."""
    prompt = PROMPTS[number % len(PROMPTS)]
    return {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}


def overhead(sides: Sides, options: argparse.Namespace) -> dict[str, Any]:
    """Time per output token, server over `LLM.stream`, taking turns; the median of the turns' ratios. And what a busy
    machine changes less: processor time of either process, and the part of all threads but the engine's in it.
    """
    found = {}
    for clients in options.clients or (1, 16):
        turns = []
        for turn in range(options.rounds + 1):
            if turn % 2:  # whatever drifts meets each of them as often
                plain, ours = _library_turn(sides, clients), _server_turn(sides, clients)
            else:
                ours, plain = _server_turn(sides, clients), _library_turn(sides, clients)
            turns += [(ours, plain)] if turn else []  # the first one warms both up
        found[str(clients)] = {
            "ratio": statistics.median(ours.per_token_s / plain.per_token_s for ours, plain in turns),
            "ratios": [ours.per_token_s / plain.per_token_s for ours, plain in turns],
            "processor_ratio": statistics.median(sum(ours.threads_s) / sum(plain.threads_s) for ours, plain in turns),
            "beside_engine": statistics.median(ours.beside_engine for ours, _ in turns),
            "beside_engine_library": statistics.median(plain.beside_engine for _, plain in turns),
            "server_ms": [ours.per_token_s * 1e3 for ours, _ in turns],
            "library_ms": [plain.per_token_s * 1e3 for _, plain in turns],
        }
    return found


@dataclass(frozen=True)
class Turn:
    """Seconds per output token, the median text's, and processor seconds of each thread of the process."""

    per_token_s: float
    threads_s: list[float]

    @property
    def beside_engine(self) -> float:
        """What all other threads computed over what the engine's did, which is the busiest."""
        return sum(self.threads_s) / max(self.threads_s) - 1


def _server_turn(sides: Sides, clients: int) -> Turn:
    before = _threads_s(sides.process)
    answers = asyncio.run(_all(sides, clients))
    return Turn(statistics.median(each.per_token_s for each in answers), _grown(before, _threads_s(sides.process)))


def _library_turn(sides: Sides, clients: int) -> Turn:
    before = _threads_s(os.getpid())
    per_token_s = _streams(sides.llm, clients)
    return Turn(statistics.median(per_token_s), _grown(before, _threads_s(os.getpid())))


def _threads_s(process: int) -> dict[str, float]:
    """Seconds that each thread of a process has computed so far."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return {task.name: int((task / "schedstat").read_text("ascii").split()[0]) / 1e9 for task in tasks}


def _grown(before: dict[str, float], after: dict[str, float]) -> list[float]:
    return [seconds - before.get(thread, 0.0) for thread, seconds in after.items()]


def throughput(sides: Sides, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of 16 clients over one, each asking again and again through the same prompts, taking turns."""
    turns: list[list[float]] = []
    answers: dict[int, list[Answer]] = {1: [], 16: []}
    for turn in range(options.rounds + 1):
        rates = []
        for clients, all_of_them in answers.items():
            rate, found = asyncio.run(_rate(sides, clients, options.window))
            rates.append(rate)
            all_of_them += found if turn else []
        turns += [rates] if turn else []  # the first one warms both up
    return {
        "ratio": statistics.median(many / one for one, many in turns),
        "tokens_per_second": turns,
        "first_token_ms": {str(n): 1e3 * statistics.median(a.first_s for a in each) for n, each in answers.items()},
        "per_token_ms": {str(n): 1e3 * statistics.mean(a.per_token_s for a in each) for n, each in answers.items()},
    }


async def _rate(sides: Sides, clients: int, seconds: float) -> tuple[float, list[Answer]]:
    """Tokens that came within so many seconds, for each of them; and the answers."""
    answers: list[Answer] = []
    end_s = time.perf_counter() + seconds

    async def client(number: int) -> None:
        while time.perf_counter() < end_s:
            answers.append(await ask(sides.url, body(number, model=sides.model)))
            number += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    _check(answers)
    came = sum(each.tokens * sum(m < end_s for m in each.moments_s) / len(each.moments_s) for each in answers)
    return came / seconds, answers


def many(sides: Sides, options: argparse.Namespace) -> dict[str, Any]:
    """64 streaming clients, each asking again and again."""
    tokens, end_s = 32, time.perf_counter() + options.seconds
    expected = [
        output.text for output in sides.llm.generate([body(i)["prompt"] for i in range(len(PROMPTS))], _params(tokens))
    ]
    memory: list[int] = []
    answers: list[tuple[int, Answer]] = []

    async def client(first: int) -> None:
        number = first
        while time.perf_counter() < end_s:
            answers.append((number, await ask(sides.url, body(number, tokens, sides.model))))
            number += 1

    async def everybody() -> None:
        clients = [asyncio.create_task(client(number)) for number in range(64)]
        while time.perf_counter() < end_s:
            await asyncio.sleep(options.seconds / 12)
            memory.append(_resident_bytes(sides.process))
        await asyncio.gather(*clients)

    asyncio.run(everybody())
    seconds = sorted(each.seconds for _, each in answers)
    return {
        "answers": len(answers),
        "errors": sum(each.error is not None for _, each in answers),
        "other_texts": sum(each.text != expected[number % len(PROMPTS)] for number, each in answers),
        "median_s": statistics.median(seconds),
        "slowest_over_median": seconds[-1] / statistics.median(seconds),
        "tokens_per_second": sum(each.tokens for _, each in answers) / options.seconds,
        "resident_mb": [round(each / 1e6) for each in memory],
    }


def leaving(sides: Sides, options: argparse.Namespace) -> dict[str, Any]:
    """200 clients that leave in the middle of their texts."""

    async def everybody() -> list[Answer]:
        return await asyncio.gather(
            *(ask(sides.url, body(number, 400, sides.model), leave_after=2) for number in range(200))
        )

    answers = asyncio.run(everybody())
    begun_s = time.perf_counter()
    with httpx.Client(base_url=sides.url) as client:
        _until(lambda: "vllm:kv_cache_usage_perc{" in (text := client.get("/metrics").text) and _is_idle(text))
    return {"left": len(answers), "idle_after_s": time.perf_counter() - begun_s}


PARTS = {"overhead": overhead, "throughput": throughput, "many": many, "leaving": leaving}


async def _all(sides: Sides, clients: int) -> list[Answer]:
    answers = await asyncio.gather(*(ask(sides.url, body(number, model=sides.model)) for number in range(clients)))
    _check(answers)
    return answers


def _check(answers: list[Answer]) -> None:
    if wrong := [each.error for each in answers if each.error]:
        raise RuntimeError(f"{len(wrong)} of {len(answers)} requests failed: {wrong[0]}")


def _streams(llm: ssd_lab.LLM, clients: int) -> list[float]:
    """Seconds per token of so many `LLM.stream` at once."""

    def one(number: int) -> float:
        moments, tokens = [], 0
        for chunk in llm.stream(body(number)["prompt"], _params(TOKENS)):
            moments.append(time.perf_counter())
            tokens += len(chunk.token_ids)
        return (moments[-1] - moments[0]) / (tokens - 1)

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, range(clients)))


def _params(tokens: int) -> ssd_lab.SamplingParams:
    return ssd_lab.SamplingParams(max_tokens=tokens, ignore_eos=True)


def _is_idle(metrics: str) -> bool:
    lines = [line for line in metrics.split("\n") if line.startswith(("vllm:num_requests", "vllm:kv_cache_usage_perc"))]
    return all(float(line.rsplit(" ", 1)[1]) == 0 for line in lines)


def _resident_bytes(process: int) -> int:
    pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def _until(condition: Any) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end_s:
            raise RuntimeError(f"it did not come true within {LIMIT_S:g} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
