"""Programs that torchrun starts: two groups of processes stand for two hosts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssd_lab import LLM
from ssd_lab.errors import ConfigError

PROGRAM = Path(__file__).with_name("program.py")
LIMIT_S = 110.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_on_two_hosts(per_host: tuple[int, int], tiny_pair: Any, *checks: str) -> dict[str, Any]:
    """What the first process printed. Every torchrun must end well."""
    common = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--master-addr=127.0.0.1"),
        f"--master-port={free_port()}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    hosts = [
        subprocess.Popen(
            [
                *common, f"--node-rank={node}", f"--nproc-per-node={count}",
                str(PROGRAM), str(tiny_pair.target), str(tiny_pair.draft), *checks,
            ],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for node, count in enumerate(per_host)
    ]  # fmt: skip
    try:
        said = [host.communicate(timeout=LIMIT_S) for host in hosts]
    finally:
        for host in hosts:  # which end what they started
            host.terminate()
            host.wait(LIMIT_S)
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(err[-2000:] for _, err in said)
    found: dict[str, Any] = json.loads(said[0][0].splitlines()[-1])
    return found


@pytest.mark.full
def test_a_draft_on_another_host_writes_the_text_of_one_process(tiny_pair: Any) -> None:
    found = run_on_two_hosts((1, 1), tiny_pair, "two_ranks", "refusals")
    assert found["two_ranks"]["there"] == found["two_ranks"]["one"]
    unknown, head = found["refusals"]
    assert "names rank:7, and torchrun started 2: rank:0 to rank:1" in unknown
    assert "EAGLE3 head" in head


@pytest.mark.extended
@pytest.mark.timeout(LIMIT_S + 10)
def test_ranks_on_two_hosts_write_the_text_of_one_host(tiny_pair: Any) -> None:
    found = run_on_two_hosts((2, 1), tiny_pair, "same_texts")["same_texts"]
    one = found.pop("one")
    here = {name: texts for name, texts in found.items() if "rank" not in name}
    assert all(texts["greedy"] == one["greedy"] for texts in here.values())  # of these prompts; see test_ranks_runs
    assert found["target=rank:0 draft=rank:2"] == here["target=cpu draft=cpu"] == one
    for name in ("target=rank:0,rank:1 draft=rank:2", "target=rank:0,rank:2 draft=rank:1"):
        assert found[name] == here["target=cpu,cpu draft=cpu"]
    assert found["target=rank:0,rank:2"] == here["target=cpu,cpu"]


@pytest.mark.extended
@pytest.mark.timeout(LIMIT_S + 10)
def test_what_is_killed_on_another_host(tiny_pair: Any) -> None:
    found = run_on_two_hosts((2, 1), tiny_pair, "killed_draft", "killed_rank")
    draft, rank = found["killed_draft"], found["killed_rank"]
    assert draft["restarts 0"] == draft["restarts 1"] == draft["expected"]
    assert "lost" in draft["said 0"] and "back at work" in str(draft["back"])
    assert "rank 1 of the target" in rank["said"] and "killed by SIGKILL" in rank["said"]
    assert rank["took_s"] < 10 and len(rank["greedy"]) == 3


def test_ranks_are_named_where_torchrun_numbers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="this program was not started by torchrun"):
        LLM(strategy="autoregressive", placement="target=rank:0,rank:1", progress=False)
    with pytest.raises(ConfigError, match="the first of target is rank:0, which runs the program"):
        LLM(strategy="autoregressive", placement="target=rank:1", progress=False)
    monkeypatch.setenv("RANK", "first")
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match="RANK, WORLD_SIZE, LOCAL_RANK and MASTER_PORT are numbers"):
        LLM(strategy="autoregressive", placement="target=rank:0,rank:1", progress=False)
