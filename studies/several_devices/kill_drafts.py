"""Drafts that are killed at every moment of a round, again and again: the text stays, nothing hangs, nothing is left.

`python -m studies.several_devices.kill_drafts --kills 1000 --out kills.json` goes on where an earlier run was cut off.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import signal
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssd_lab import LLM, SamplingParams
from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.drafting.several_drafts import SeveralDrafts
from ssd_lab.engine.rounds import Rounds
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.links.slots import Slots
from studies.several_devices import say

MOMENTS: dict[str, tuple[type, str]] = {  # what the engine is about to do, or has just done, when a draft is killed
    "a prompt": (LinkProposer, "prefill"),
    "telling who is in the batch": (ProcessLink, "post"),
    "writing the outcome": (Slots, "write_outcome"),
    "waiting for the answer": (ProcessLink, "_take"),
    "reading the answer": (Slots, "read_speculation"),
    "verifying": (Rounds, "verify"),
    "reading the outcome": (Rounds, "collect"),
    "telling the outcome": (LinkProposer, "observe"),
}
AT_RANDOM = "some time later"
PROMPTS = ["Tell me about the sea.", "What is 12 + 7?", "Write a line about rain.", "Who are you?"]
PARAMS = [
    SamplingParams(max_tokens=24, ignore_eos=True),
    SamplingParams(max_tokens=24, ignore_eos=True, temperature=1.0),
]
HANG_S = 120  # no run takes as long
KILLS_OF_ONE = 25  # of one engine, then everything is closed and looked for


@dataclass
class Counted:
    """What happened. moments: kills by moment. no_draft_left: of these, how often no draft was at work then."""

    kills: int = 0
    runs: int = 0
    wrong_texts: int = 0
    leftovers: int = 0
    no_draft_left: int = 0
    moments: Counter[str] = field(default_factory=Counter)


class Left:
    """What an engine may leave behind: processes, descriptors, files."""

    def __init__(self) -> None:
        self._before = self._held()

    def anything(self) -> list[str]:
        """What is there now and was not before."""
        return sorted(self._held() - self._before)

    @staticmethod
    def _held() -> set[str]:
        descriptors = {f"descriptor {name}" for name in os.listdir("/proc/self/fd")[:-1]}
        shared = {f"/dev/shm/{name}" for name in os.listdir("/dev/shm") if name.startswith("ssd_lab-draft")}
        files = {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("ssd_lab-draft")}
        return descriptors | shared | files | {f"process {own}" for own in children()}


def children() -> list[int]:
    """Processes that this one started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # gone meanwhile
                continue
            if int(stat[1]) == os.getpid():
                found.append(int(entry.name))
    return found


def drafts_of(llm: LLM) -> list[int]:
    """Process ids of drafts at work."""
    proposer = llm._engine.proposer
    drafts = proposer.drafts if isinstance(proposer, SeveralDrafts) else []
    return [draft.link.process_id for draft in drafts if isinstance(draft.link, ProcessLink)]


@contextmanager
def killed_at(moment: str, victim: int, chosen: random.Random) -> Iterator[None]:
    """Within this the victim is killed once, before or after a call that stands for the moment."""
    if moment == AT_RANDOM:
        timer = threading.Timer(chosen.uniform(0, 0.3), _kill, [victim])
        timer.start()
        try:
            yield
        finally:
            timer.join()
        return
    owner, name = MOMENTS[moment]
    original: Callable[..., Any] = getattr(owner, name)
    call, after, calls = chosen.randint(1, 4), chosen.random() < 0.5, 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            _kill(victim)
        result = original(*arguments, **named)
        if calls == call and after:
            _kill(victim)
        return result

    setattr(owner, name, counted)
    try:
        yield
    finally:
        setattr(owner, name, original)
        _kill(victim)  # where the call never came


def _kill(process_id: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)


def texts_of(llm: LLM, params: SamplingParams) -> list[list[int]]:
    """The run, which must end."""
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    try:
        return [output.token_ids for output in llm.generate(PROMPTS, params)]
    finally:
        faulthandler.cancel_dump_traceback_later()


def kill_some(counted: Counted, kills: int, chosen: random.Random, expected: list[list[list[int]]]) -> None:
    """One engine with two drafts, closed at the end, and what is left of it then."""
    left = Left()
    placement = {"target": ["cpu"], "draft": ["cpu", "cpu"]}
    options: dict[str, Any] = {"placement": placement, "restart_draft": 1000, "threads": 1, "progress": False}
    with LLM(strategy="async_tree", k=4, f=2, dtype="float32", **options) as llm:
        done = 0
        while done < kills:
            drafts = drafts_of(llm)
            if not drafts:
                time.sleep(0.05)  # one is being started; rounds until then are autoregressive
                counted.wrong_texts += texts_of(llm, PARAMS[0]) != expected[0]
                continue
            which, moment = chosen.randrange(2), chosen.choice([*MOMENTS, AT_RANDOM])
            with killed_at(moment, chosen.choice(drafts), chosen):
                texts = texts_of(llm, PARAMS[which])
            exact = which == 1 or texts == expected[0]  # sampled texts keep a law, not their letters, without a draft
            counted.wrong_texts += not exact
            counted.runs += 1
            counted.kills += 1
            counted.moments[moment] += 1
            counted.no_draft_left += len(drafts) == 1
            done += 1
    found = left.anything()
    counted.leftovers += len(found)
    if found:
        say(f"left behind: {', '.join(found)}")


def main() -> None:
    """Kill until there were so many, or the time is up; what was counted is kept in a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=8.0, help="of this run")
    parser.add_argument("--out", type=Path, default=Path("kills.json"))
    asked = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    counted = Counted()
    if asked.out.exists():
        told = json.loads(asked.out.read_text())
        counted = Counted(**{**told, "moments": Counter(told["moments"])})
    with LLM(strategy="autoregressive", dtype="float32", threads=1, progress=False) as llm:
        expected = [texts_of(llm, params) for params in PARAMS]
    end_s, chosen = time.monotonic() + 60 * asked.minutes, random.Random(counted.kills)
    while counted.kills < asked.kills and time.monotonic() < end_s:
        kill_some(counted, min(KILLS_OF_ONE, asked.kills - counted.kills), chosen, expected)
        asked.out.write_text(json.dumps({**vars(counted), "moments": dict(counted.moments)}))
        say(counted)


if __name__ == "__main__":
    main()
