"""`ssd-lab serve --replicas` on a local Ray, as a process."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

import ssd_lab

HAS_RAY_SERVE = all(importlib.util.find_spec(name) for name in ("ray", "grpc", "aiohttp"))
BODY = {"model": "tiny", "ignore_eos": True, "temperature": 0}
PLACEMENT = "target=cpu,cpu"
LONG = 200  # tokens
START_S, WAIT_S = 120, 60


class Served:
    """A running command. lines: of its stderr so far."""

    def __init__(self, options):
        command = [sys.executable, "-m", "ssd_lab.cli", "serve", "--port", "0", "--replicas", "2", *options]
        root = str(Path(ssd_lab.__file__).parents[1])
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local", "PYTHONPATH": root}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root, env=environment)
        self.lines: list[str] = []
        self.reading = threading.Thread(target=lambda: self.lines.extend(self.process.stderr))
        self.reading.start()

    def url(self):
        told = until(lambda: [line for line in self.lines if line.startswith("serving tiny")], START_S)
        assert told, "".join(self.lines)
        return told[0].rsplit(" ", 1)[1].strip()

    def answered_by(self, prompts):
        """The replica that each was answered by, from the log."""
        return [json.loads(line).get("replica") for line in self.completions()][-prompts:]

    def completions(self):
        """Their lines of the log, which come a little after the answers."""
        return [line for line in self.lines if '"/v1/completions"' in line]


def until(condition, within_s=WAIT_S):
    end_s = time.monotonic() + within_s
    while not (found := condition()) and time.monotonic() < end_s:
        time.sleep(0.05)
    return found


def family(process):
    """Of a process its children, theirs, and so on."""
    found = []
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, tasks.read_text().split()):
                found += [child, *family(child)]
    return found


def replicas(process):
    """Their processes by the name that Ray gives them."""
    return [each for each in family(process) if b"ServeReplica" in Path(f"/proc/{each}/cmdline").read_bytes()]


def ask(client, prompt, tokens):
    answer = client.post("/v1/completions", json={**BODY, "prompt": prompt, "max_tokens": tokens})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def check_texts_and_queues(client, served, pair):
    """The offline texts, by both replicas alike: each takes so long that all eight are under way at once."""
    prompts = [f"Number {number}" for number in range(8)]
    params = ssd_lab.SamplingParams(max_tokens=LONG, ignore_eos=True)
    fields = {"placement": PLACEMENT, "dtype": "float32", "chat": False, "progress": False}
    with ssd_lab.LLM(pair.target, strategy="autoregressive", **fields) as llm:
        expected = [output.text for output in llm.generate(prompts, params)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(partial(ask, client, tokens=LONG), prompts)) == expected
    assert until(lambda: len(served.completions()) == 8)
    counts = Counter(served.answered_by(8))
    assert set(counts) == {0, 1} and min(counts.values()) >= 3


def check_prefixes(client, served):
    """Prompts that begin alike go to one replica, others take turns."""
    for start, replicas_of_four in (("A long beginning. " * 20, 1), ("", 2)):
        before = len(served.completions())
        for number in range(4):
            ask(client, f"{start}{number}", tokens=2)
        assert until(lambda: len(served.completions()) == before + 4)  # noqa: B023 - called here
        assert len(set(served.answered_by(4))) == replicas_of_four


def check_leaving(client):
    with client.stream(
        "POST", "/v1/completions", json={**BODY, "prompt": "a", "max_tokens": 400, "stream": True}
    ) as one:
        next(one.iter_lines())

    def numbers(name):
        return [line.rsplit(" ", 1)[1] for line in client.get("/metrics").text.splitlines() if line.startswith(name)]

    assert until(lambda: numbers("ssd_lab:kv_blocks_free{") == numbers("ssd_lab:kv_blocks{"))


def check_a_loss(client, served):
    """Its requests end in words, the others go on, and another takes its place."""
    lost, _ = replicas(served.process.pid)

    def stream(number):
        body = {**BODY, "prompt": f"{number}", "max_tokens": 450, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            begun.release()
            return [line for line in lines if line][-2:]

    begun = threading.Semaphore(0)
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(stream, number) for number in range(2)]
        assert all(begun.acquire(timeout=WAIT_S) for _ in streams)
        os.kill(lost, signal.SIGKILL)
        ends = sorted(future.result(WAIT_S) for future in streams)
    assert all(last == "data: [DONE]" for _, last in ends)
    assert sorted("replica_lost" in end for end, _ in ends) == [False, True]
    assert ask(client, "still here", tokens=2)
    assert until(lambda: client.get("/health").status_code == 200)
    assert len(replicas(served.process.pid)) == 2 and lost not in replicas(served.process.pid)


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.skipif(not HAS_RAY_SERVE, reason="Ray Serve is not installed: pip install -e '.[ray]'")
def test_two_replicas_share_requests_and_one_that_dies_is_replaced(tiny_pair):
    models = [*tiny_pair.options, "--served-name", "tiny", "-s", "sync_chain", "--placement", PLACEMENT]
    served = Served(models)
    try:
        with httpx.Client(base_url=served.url(), timeout=WAIT_S) as client:
            check_texts_and_queues(client, served, tiny_pair)
            check_prefixes(client, served)
            check_leaving(client)
            check_a_loss(client, served)
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(WAIT_S) == 0
    finally:
        for each in [*family(served.process.pid), served.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        served.process.wait(WAIT_S)
        served.reading.join(WAIT_S)
        served.process.stderr.close()
