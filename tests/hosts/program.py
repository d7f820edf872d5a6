"""What torchrun starts in the tests, once for each of its processes: `program.py TARGET DRAFT CHECKS`.

The checks' results are printed as one line of JSON by the first process; the others stay in the first LLM, whose
placement names ranks in every check.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from ssd_lab import LLM, SamplingParams
from ssd_lab.errors import ConfigError, RankError

PROMPTS = ["Hello there", "def add(a, b):", "1 + 2 ="]
GREEDY = SamplingParams(max_tokens=24, ignore_eos=True)
SAMPLED = SamplingParams(max_tokens=16, ignore_eos=True, temperature=1.0, seed=3)
LONG = SamplingParams(max_tokens=160, ignore_eos=True)
PLACEMENTS = {  # with the same on one host; rank 2 is on another one
    "target=rank:0 draft=rank:2": "target=cpu draft=cpu",
    "target=rank:0,rank:1 draft=rank:2": "target=cpu,cpu draft=cpu",
    "target=rank:0,rank:2 draft=rank:1": "target=cpu,cpu draft=cpu",
    "target=rank:0,rank:2": "target=cpu,cpu",
}


def opened(placement: str | None, **fields: Any) -> LLM:
    own = {} if placement is None else {"placement": placement}
    options = {"strategy": "async_tree", "k": 3, "f": 2, "dtype": "float32", "progress": False, "max_batch": 4}
    return LLM(sys.argv[1], sys.argv[2], **{**options, **own, **fields})


def texts(placement: str | None) -> dict[str, Any]:
    with opened(placement) as llm:
        return {
            name: [output.token_ids for output in llm.generate(PROMPTS, params)]
            for name, params in (("greedy", GREEDY), ("sampled", SAMPLED))
        }


def same_texts() -> dict[str, Any]:
    """At every placement, there and on one host; and from one process."""
    found: dict[str, Any] = {there: texts(there) for there in PLACEMENTS}
    return {**found, **{here: texts(here) for here in set(PLACEMENTS.values())}, "one": texts(None)}


def two_ranks() -> dict[str, Any]:
    """The least: one draft on the other host, and the same from one process."""
    return {"there": texts("target=rank:0 draft=rank:1"), "one": texts(None)}


def kill_after(process: int, steps: int) -> Callable[[int, Any], None]:
    def on_step(number: int, totals: Any) -> None:
        if number == steps:
            os.kill(process, signal.SIGKILL)

    return on_step


def killed_draft() -> dict[str, Any]:
    """Once for good, once started again."""
    found: dict[str, Any] = {}
    for restarts in (0, 1):
        with opened("target=rank:0 draft=rank:2", restart_draft=restarts) as llm, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            link = llm._engine.proposer._seats[0].now.link  # type: ignore[attr-defined]
            run = llm.run(PROMPTS[0], LONG, on_step=kill_after(link.process_id, 4))
            found[f"restarts {restarts}"] = run.outputs[0].token_ids
            found[f"said {restarts}"] = str(run)
            end_s = time.monotonic() + 40
            while restarts and time.monotonic() < end_s:
                meta = llm.run(PROMPTS[0], LONG).trace.meta
                found["back"] = meta.get("drafts")
                if "back at work" in str(meta.get("drafts")):
                    break
    with opened(None) as llm:
        return {**found, "expected": llm.generate(PROMPTS[0], LONG)[0].token_ids}


def killed_rank() -> dict[str, Any]:
    """In the middle of a request; then the next LLM."""
    with opened("target=rank:0,rank:2") as llm:
        team = llm._engine._runner.executor._team  # type: ignore[attr-defined]
        start_s = time.monotonic()
        try:
            llm.run(PROMPTS[0], LONG, on_step=kill_after(team.reports[1].process_id, 4))
            said = "nothing"
        except RankError as error:
            said = str(error)
    return {"said": said, "took_s": time.monotonic() - start_s, **texts("target=rank:0,rank:2")}


def refusals() -> list[str]:
    """What cannot be, in words."""
    said = []
    for number, strategy in ((7, "async_tree"), (1, "eagle3")):
        try:
            LLM(strategy=strategy, placement=f"target=rank:0 draft=rank:{number}", progress=False).close()
        except ConfigError as error:
            said.append(str(error))
    return said


if __name__ == "__main__":
    checks = {check.__name__: check for check in (same_texts, two_ranks, killed_draft, killed_rank, refusals)}
    found = {name: checks[name]() for name in sys.argv[3:]}
    sys.stdout.write(json.dumps(found) + "\n")
